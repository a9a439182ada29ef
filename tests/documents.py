"""How tests write a single setting as a whole `looms.yaml`."""

from __future__ import annotations

import yaml


def document(path: str, value: object) -> str:
    """Give the document that sets what a path such as `llm.provider` names, and nothing else."""
    nested: object = value
    for name in reversed(path.split(".")):
        nested = {name: nested}
    return yaml.safe_dump(nested)
