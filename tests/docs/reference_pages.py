"""What docs/reference/providers.md and llm-*.md say from the table of providers and the catalog.

`python -m tests.docs.reference_pages --write` renews it, between the marks; a test fails where it is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from loomstream import catalog
from loomstream.catalog import Entry, compare
from loomstream.catalog.generate import by_hand
from loomstream.cli.key_options import KEY_FLAGS
from loomstream.providers import Provider, dialects_of
from loomstream.providers.table import BY_NAME

PAGES = Path(__file__).parents[2] / "docs" / "reference"
DOCUMENTED = (
    "anthropic",
    "bedrock",
    "ollama",
    "openai",
    "azure-openai",
    "mistral",
    "gemini",
    "huggingface",
    "vertex-ai",
    "cohere",
    "litellm",
)
"""The providers with a page of their own; every other one is an OpenAI-compatible host."""

_MARKED = re.compile(r"(<!-- generated:(\w+) -->\n).*?(<!-- /generated -->\n)", re.DOTALL)
_MOST_MODELS = 20
_HERE = ("ollama", "local")
_ROUTED = "meta-llama/Llama-3.3-70B-Instruct"

Lines = Iterable[str]


def renewed(page: Path) -> str:
    """Give a page with all that is generated made anew."""
    provider = BY_NAME.get(page.stem.removeprefix("llm-"))

    def made(found: re.Match[str]) -> str:
        make = MAKERS.get(found[2])
        lines = OF_PROVIDER[found[2]](provider) if make is None else make()
        return found[1] + "".join(f"{line}\n" for line in lines) + found[3]

    return _MARKED.sub(made, page.read_text("utf-8"))


def pages() -> list[Path]:
    """Give the pages that hold something generated."""
    return sorted([*PAGES.glob("llm-*.md"), PAGES / "providers.md"])


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> Lines:
    """Give a table in Markdown."""
    titles = list(titles)
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def code(names: Iterable[str], between: str = ", ") -> str:
    return between.join(f"`{name}`" for name in names)


# --- one provider --------------------------------------------------------------------------------


def authentication(provider: Provider | None) -> Lines:
    """Give where a key is looked for."""
    if provider is None:
        return table(("where", "name"), [("argument", "`api_key=`"), ("an entry of `looms.yaml`", "`api_key_env`")])
    if provider.auth == "none":
        return ["None is needed."]
    rows = [("argument", "`api_key=`, also a function that gives a token"), *_options(provider)]
    named = [(provider.key_environment, "")]
    named += [(one.environment, f": {one.name}") for one in provider.settings if one.keyring]
    rows += [("environment", code(ours) + what) for names, what in named if (ours := _ours(names))]
    rows.append(("`looms.yaml`", "[accepted with a warning](configuration.md#secrets-and-files-of-others)"))
    rows += [("environment", code(other) + what) for names, what in named if (other := _vendors(names))]
    if provider.keyring:
        rows.append(("keyring", f"`looms config set-key {provider.keyring}`"))
    rows += [("keyring", f"`looms config set-key {one.keyring}`") for one in provider.settings if one.keyring]
    if provider.auth in AMBIENT:
        rows.append(("identity of the machine", AMBIENT[provider.auth]))
    return table(("where, in this order", "name"), rows)


def _ours(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.startswith("LOOM_")]


def _vendors(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not name.startswith("LOOM_")]


_SIGN_IN = {"aws": "AWS IAM", "azure": "Entra ID", "google": "Google identity", "none": "none is needed"}
AMBIENT = {
    "aws": "AWS's chain: profile, SSO, role, container, instance",
    "azure": "azure-identity's chain: workload identity, managed identity, `az login`",
    "google": "application default credentials, service account, workload identity",
}


def _options(provider: Provider) -> Iterable[tuple[str, str]]:
    if flag := KEY_FLAGS.get(provider.name):
        yield "command line", f"`{flag}` (`-` reads it from standard input)"


def models(provider: Provider | None) -> Lines:
    """Give the models that stand by hand, or all, with what they can and cost."""
    if provider is None:
        return ["Whatever the host serves; mostly `GET /v1/models` lists it."]
    entries = _listed(provider.name)
    if not entries:
        return ["Whatever the host serves."]
    lines = table(MODEL_TITLES, map(_model_row, entries))
    count = len(catalog.entries(provider.name))
    more = f"All {count}: `looms models -p {provider.name} --all`. " if count > len(entries) else ""
    return [*lines, "", f"{more}US dollars per million tokens, as of {catalog.as_of()}; the task is {TASK}."]


TASK = f"{compare.TYPICAL.input_tokens} tokens in and {compare.TYPICAL.output_tokens:,} out"
MODEL_TITLES = ("model", "window", "writes", "in", "out", "cache read", "task", "known to have", "last day")
_WORDS = {
    "parallel_tools": "parallel calls",
    "structured_output": "schemas",
    "vision": "images",
    "tools": "tools",
    "reasoning": "reasoning",
    "prefill": "prefill",
}


def _listed(provider: str) -> list[Entry]:
    known = {entry.model: entry for entry in catalog.entries(provider)}
    named = [known[entry.model] for entry in by_hand() if entry.provider == provider]
    return (named or list(known.values()))[: _MOST_MODELS * 2]


def _model_row(entry: Entry) -> tuple[str, ...]:
    price, has = entry.price, [word for name, word in _WORDS.items() if entry.can(name)]
    reads = "?" if price is None or price.cache_read is None else f"{price.cache_read:f}"
    return (
        "any other" if entry.model == catalog.ANY_MODEL else f"`{entry.model}`",
        tokens(entry.context_tokens),
        tokens(entry.max_output_tokens),
        rate(entry, "input"),
        rate(entry, "output"),
        "free" if entry.free else reads,
        dollars(entry),
        ", ".join(has) or "?",
        str(entry.deprecated_on or ""),
    )


def tokens(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def rate(entry: Entry, field: str) -> str:
    if entry.free:
        return "free"
    return "?" if entry.price is None else f"{getattr(entry.price, field):f}" + ("+" if entry.price.tiers else "")


def dollars(entry: Entry) -> str:
    cost = compare.cost(entry, compare.TYPICAL)
    if cost is None:
        return "?"
    return "free" if not cost else f"${cost.normalize():f}"


def backends(provider: Provider | None) -> Lines:
    """Give who serves a well-known model, and for how much."""
    name = provider.name if provider else ""
    found = [entry for entry in catalog.entries(name) if entry.model.startswith(f"{_ROUTED}:")]
    rows = [(f"`{e.model}`", rate(e, "input"), rate(e, "output"), dollars(e)) for e in found]
    return table(("model", "in", "out", "task"), rows)


OF_PROVIDER: dict[str, Callable[[Provider | None], Lines]] = {
    "authentication": authentication,
    "models": models,
    "backends": backends,
}


# --- all providers -------------------------------------------------------------------------------


def default_of(name: str) -> Entry | None:
    asked = BY_NAME[name].default_model
    found = catalog.look_up(name, asked) if asked else None
    return None if found is None else replace(found, model=asked)


def link(name: str) -> str:
    return f"[{name}](llm-{name}.md)"


def alive(name: str) -> list[Entry]:
    return [entry for entry in catalog.entries(name) if not _ended(entry)]


def _ended(entry: Entry) -> bool:
    return entry.deprecated_on is not None and entry.deprecated_on <= catalog.as_of()


def quick() -> Lines:
    """Give the quick reference."""
    return table(
        ("provider", "default model", "tools", "largest window", "task, from … to"),
        ([link(name), _default(name), _tools(name), _window(name), _span(name)] for name in DOCUMENTED),
    )


def _default(name: str) -> str:
    return f"`{model}`" if (model := BY_NAME[name].default_model) else "your deployment"


def _tools(name: str) -> str:
    entries = alive(name)
    native = sum(entry.can("tools") is True for entry in entries)
    if not entries:
        return "as behind it"
    return (
        "of every model that has them"
        if entries[-1].model == catalog.ANY_MODEL
        else f"{native} of {len(entries)} known"
    )


def _window(name: str) -> str:
    known = [entry.context_tokens for entry in alive(name) if entry.context_tokens]
    return f"{max(known):,}" if known else "as behind it"


def _span(name: str) -> str:
    costs = sorted(cost for entry in alive(name) if (cost := compare.cost(entry, compare.TYPICAL)) is not None)
    if not costs:
        return "told by the proxy"
    return "free" if not costs[-1] else f"${costs[0].normalize():f} to ${costs[-1].normalize():f}"


def methods() -> Lines:
    """Give how each provider is told who asks."""
    rows = [
        (
            link(name),
            f"`looms config set-key {row.keyring}`" if row.keyring else "—",
            code(row.key_environment, "<br>") or "—",
            "; ".join([*(words.split(" (")[0] for _, words in _options(row)), *_ambient(row)]) or "—",
        )
        for name in DOCUMENTED
        if (row := BY_NAME[name])
    ]
    return table(("provider", "keyring", "environment", "else"), rows)


def _ambient(row: Provider) -> list[str]:
    secrets = [f"`looms config set-key {one.keyring}`" for one in row.settings if one.keyring]
    return secrets + ([AMBIENT[row.auth]] if row.auth in AMBIENT else [])


def matrix() -> Lines:
    """Give what of each provider's models is known to be able to do what."""
    rows: list[list[str]] = []
    for name in DOCUMENTED:
        row, entries = BY_NAME[name], alive(name)
        counts = [sum(entry.can(ability) is True for entry in entries) for ability in _WORDS]
        shown = [str(count) if entries else "?" for count in counts]
        local = "yes" if row.base_url.startswith("http://localhost") else "no"
        limit = f"{row.requests_per_minute:g}" if row.requests_per_minute else "—"
        rows.append(
            [
                link(name),
                code(dialects_of(row), "<br>"),
                str(len(entries)),
                *shown,
                local,
                _SIGN_IN.get(row.auth, "—"),
                limit,
            ]
        )
    titles = (
        "provider",
        "dialects",
        "models",
        *_WORDS.values(),
        "on your machine",
        "without a key",
        "requests a minute",
    )
    return table(titles, rows)


def costs() -> Lines:
    """Give what the typical task costs at the default model of each provider, and at its cheapest and newest ones."""
    chosen = [entry for name in (*DOCUMENTED, "local") for entry in _compared(name)]
    rows = [
        (entry.provider, f"`{entry.model}`", rate(entry, "input"), rate(entry, "output"), dollars(entry))
        for entry in chosen
    ]
    return table(("provider", "model", "in", "out", "task"), rows)


def _compared(name: str) -> list[Entry]:
    """Give the default model, and the cheapest that is known to call tools."""
    first = default_of(name)
    able = [found.entry for found in compare.find(compare.Wanted(capabilities=("tools",)), alive(name))]
    usable = [entry for entry in able if entry.price is not None and entry.model != catalog.ANY_MODEL]
    found = [entry for entry in (first, *usable[:1]) if entry is not None]
    return list({entry.model: entry for entry in found}.values())


def recommendations() -> Lines:
    """Give which providers suit a use: those at which the catalog knows models that do."""
    return table(("for", "take", "because"), ((use, pick(), why) for use, pick, why in USES))


def _cheapest(*capabilities: str, context_tokens: int = 0) -> str:
    wanted = compare.Wanted(capabilities=("tools", *capabilities), context_tokens=context_tokens, output_tokens=1)
    everything = [entry for name in DOCUMENTED if name not in _HERE for entry in alive(name)]
    found = [each for each in compare.find(wanted, everything) if each.task_usd]
    best = {each.entry.provider: each for each in reversed(found)}
    ordered = sorted(best.values(), key=lambda each: (each.task_usd or 0, each.name))[:3]
    return "<br>".join(f"`{each.name}` (${each.task_usd.normalize():f})" for each in ordered if each.task_usd)


def _of(*names: str) -> Callable[[], str]:
    return lambda: ", ".join(map(link, names))


USES: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("general production", _of("anthropic", "openai"), "native tools, parallel calls, reasoning; the makers' own APIs"),
    (
        "the best answers",
        _of("anthropic", "openai", "gemini"),
        "their newest large models; compare them on prompts of yours",
    ),
    ("AWS", _of("bedrock"), "IAM, regions, one bill"),
    ("Azure", _of("azure-openai"), "Entra ID, regions, one bill"),
    ("Google Cloud", _of("vertex-ai"), "application default credentials; Gemini and Claude"),
    (
        "development without a bill, offline work, privacy",
        _of("ollama"),
        "runs on your machine; or the embedded model, `local`",
    ),
    ("open models", _of("huggingface", "ollama"), "many who serve them, or your own machine"),
    ("answers from documents", _of("cohere", "gemini"), "citations; or the whole document in the window"),
    ("a proxy that is there already", _of("litellm"), "its keys, budgets and names"),
    ("the lowest price with tools", _cheapest, "the typical task, at the cheapest model of each"),
    ("the lowest price with images and tools", lambda: _cheapest("vision"), "the same, of those that see"),
    (
        "a million tokens of prompt",
        lambda: _cheapest(context_tokens=1_000_000),
        "the same, of those with tools and such a window",
    ),
)

MAKERS: dict[str, Callable[[], Lines]] = {
    "quick": quick,
    "methods": methods,
    "matrix": matrix,
    "costs": costs,
    "recommendations": recommendations,
    "day": lambda: [f"Prices as of {catalog.as_of()}; the task is {TASK}, at the usual rate and without a cache."],
}


if __name__ == "__main__" and "--write" in sys.argv:
    for each in pages():
        each.write_text(renewed(each), "utf-8")
