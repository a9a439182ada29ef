"""`--tools FILE.py`: functions of a Python file as tools.

Contract: the file is run, in this process. Its tools are its list `TOOLS`, else what `loomstream.tool` made in it, else
its own functions whose names begin with no underscore. What is wrong with it comes out as one `RequestError`.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import cast

from loomstream.cli.terminal import one_line
from loomstream.errors import RequestError
from loomstream.kind_names import kind_of
from loomstream.messages import AsTool

Tools = list[AsTool | Callable[..., object]]
_MODULE = "looms_tools"


def load_tools(path: str) -> Tools:
    """Run the file, give its tools. Raises `RequestError` where it cannot be run, or has none."""
    module = _run(path)
    listed: object = getattr(module, "TOOLS", None)
    if listed is not None and not isinstance(listed, Iterable):
        msg = f"{path}: TOOLS is {kind_of(listed)}: give a list of functions"
        raise RequestError(msg)
    members = list(vars(module).values())
    found = (
        list(cast("Iterable[object]", listed))
        if listed is not None
        else [each for each in members if isinstance(each, AsTool) and not isinstance(each, type)]
        or [each for each in members if _is_own(each)]
    )
    if not found:
        msg = f"{path}: there is no tool in it: define a function with type hints and a docstring"
        raise RequestError(msg)
    return cast("Tools", found)


def _is_own(member: object) -> bool:
    return inspect.isfunction(member) and member.__module__ == _MODULE and not member.__name__.startswith("_")


def _run(path: str) -> ModuleType:
    if not Path(path).is_file():
        msg = f"--tools {path}: there is no such file"
        raise RequestError(msg)
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        msg = f"--tools {path}: this is no Python file: its name must end in .py"
        raise RequestError(msg)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # type hints of its functions are looked up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        msg = f"--tools {path} cannot be run: {type(error).__name__}: {one_line(str(error))}"
        raise RequestError(msg) from error
    return module
