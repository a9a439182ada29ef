from __future__ import annotations

import re
from pathlib import Path

import pytest

from loomstream.config.load import load
from tests.docs.reference_pages import DOCUMENTED, PAGES, pages, renewed

HEADINGS = (
    "Why",
    "Configuration",
    "Authentication",
    "Available Models",
    "Tool Calling",
    "When to Use",
    "Limitations",
    "Troubleshooting",
    "Reference",
)
OTHERS = ("adding-a-provider", "migration", "observability", "performance", "providers")
OF_PROVIDERS = [PAGES / f"llm-{name}.md" for name in (*DOCUMENTED, "custom")]
OURS = [*OF_PROVIDERS, *(PAGES / f"{name}.md" for name in OTHERS)]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_what_is_generated_is_up_to_date(page: Path) -> None:
    assert renewed(page) == page.read_text("utf-8"), "run: python -m tests.docs.reference_pages --write"


@pytest.mark.parametrize("page", OF_PROVIDERS, ids=name_of)
def test_each_provider_s_page_has_the_same_headings(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    title = lines[0].removeprefix("# ")
    found = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert found == [f"Why {title}", *HEADINGS[1:]]
    for heading in found:
        following = lines[lines.index(f"## {heading}") + 1 :]
        assert next(line for line in following if line)[0] != "#", f"nothing under {heading}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text("utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {path}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {path}#{anchor}"


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_every_configuration_on_it_is_one(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path))
    for number, text in enumerate(YAML.findall(page.read_text("utf-8"))):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text, "utf-8")
        file.chmod(0o600)
        assert load(file).warnings == (), text


def test_links_and_configurations_are_found() -> None:
    texts = [page.read_text("utf-8") for page in OURS]
    assert all(LINK.search(text) for text in texts)
    assert all(YAML.search(page.read_text("utf-8")) for page in OF_PROVIDERS)
