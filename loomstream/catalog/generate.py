"""Makes the catalog's file: `python -m loomstream.catalog.generate [--litellm FILE] [--output FILE]`.

Contract: prices are those of the installed genai-prices, else of litellm's cost map, which also tells limits,
capabilities and the days on which models end; `overrides.json`, by hand, wins over both. Beside a price by hand the
file keeps a mark of what the source stated then: ours counts for as long as the source still says the same, or ours is
newer. Where a source is absent, what the last file says stays.

litellm's map is taken from the package where it is installed, else from FILE: `pip download --no-deps litellm`, and out
of the wheel `litellm/model_prices_and_context_window_backup.json`.

To write prices by hand, edit `overrides.json` and run this; to add a provider's models, add a line to `origins.json`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from loomstream.catalog import sources, stored
from loomstream.catalog.entry import ANY_REGION, Entry, Price, Rates, TieredRates
from loomstream.catalog.names import own_region, plain_names, region_row, whole_id
from loomstream.errors import ConfigError

_OTHER_MEDIA = re.compile(
    r"audio|realtime|tts|transcri|image|embed|ocr|moderation|whisper|rerank|\blive\b|voxtral|omni|robotics|sonic|banana"
    r"|guard"
)
"""Models by whose names it is plain that text is not all that they take and give: counts of text do not price them."""

_COST_MAP = "model_prices_and_context_window_backup.json"


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the models of a provider stand: genai-prices' id of it, litellm's ids, and the prefix of litellm's keys.

    `backend` is for a router, whose models are served, and charged for, by several: the ending of the model's name.
    `begins` are the beginnings of the ids that belong to it, where a source lists others' too. `patterns` says that
    genai-prices describes ids there by pattern and knows them better. `flat`: no id of a model holds a slash there.
    `with_tools` are what each model of it can that calls tools, by its API, where no source says anything of the model.
    """

    provider: str
    genai: str = ""
    litellm: tuple[str, ...] = ()
    prefix: str = ""
    backend: str = ""
    begins: tuple[str, ...] = ("",)
    patterns: bool = False
    flat: bool = False
    with_tools: tuple[str, ...] = ()


class Given(NamedTuple):
    """What to make a file of. `genai` and `litellm` are None where the source is absent; the words name them."""

    genai: Mapping[str, sources.PricedProvider] | None
    litellm: sources.CostMap | None
    genai_name: str
    litellm_name: str
    today: date


class Made(NamedTuple):
    """A file, and how many of its models are new, changed and gone since the one before."""

    data: bytes
    models: int
    new: int
    changed: int


def make(given: Given, overrides: Iterable[Entry], before: stored.Catalog) -> Made:
    """Give the file that the sources, what stands by hand, and the file before make."""
    found: dict[tuple[str, str], Entry] = {}
    by_api: dict[str, tuple[str, ...]] = {}
    for source in origins():
        rows = _Rows(source.provider)
        _add_genai(rows, source, given)
        _add_litellm(rows, source, given)
        found |= {(source.provider, entry.model): entry for entry in rows.entries()}
        by_api[source.provider] = source.with_tools
    old = {(entry.provider, entry.model): entry for entry in before}
    found = _kept(found, old, given)
    replaced: dict[tuple[str, str], str] = {}
    entries = [_as_its_api(entry, by_api) for entry in _with_hand(found, list(overrides), before, replaced)]
    new = [entry for entry in entries if (entry.provider, entry.model) not in old]
    changed = [e for e in entries if (was := old.get((e.provider, e.model))) is not None and was.price != e.price]
    return Made(stored.encode(entries, given.today, replaced), len(entries), len(new), len(changed))


def _as_its_api(entry: Entry, by_api: Mapping[str, tuple[str, ...]]) -> Entry:
    if entry.tools != "native":
        return entry
    unknown = [name for name in by_api.get(entry.provider, ()) if getattr(entry, name) is None]
    return replace(entry, **dict.fromkeys(unknown, True)) if unknown else entry


# --- one provider's rows -------------------------------------------------------------------------


class _Rows:
    """The entries of one provider, found by each of their names."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        self.patterns: list[tuple[sources.PricedModel, str]] = []
        """The models of genai-prices, with the names of their entries."""

    def add(self, entry: Entry) -> None:
        """Add an entry; names that are taken stay with who has them."""
        if entry.model in self._names:
            return
        aliases = tuple(
            name for name in dict.fromkeys(entry.aliases) if name not in self._names and name != entry.model
        )
        self._entries[entry.model] = replace(entry, aliases=aliases)
        self._names |= dict.fromkeys((entry.model, *aliases), entry.model)

    def find(self, name: str) -> Entry | None:
        """Give the entry of exactly this name."""
        model = self._names.get(name)
        return None if model is None else self._entries[model]

    def put(self, entry: Entry) -> None:
        """Put an entry in the place of the one of its model."""
        self._entries[entry.model] = entry

    def entries(self) -> list[Entry]:
        """Give all, without the aliases that the rules for names make."""
        return [_shortened(entry) for entry in self._entries.values()]


def _shortened(entry: Entry) -> Entry:
    return replace(entry, aliases=tuple(name for name in entry.aliases if entry.model not in plain_names(name)))


def _add_genai(rows: _Rows, source: Source, given: Given) -> None:
    listed = None if given.genai is None else given.genai.get(source.genai)
    for model in () if listed is None else listed.models:
        name = own_region(whole_id(model.id)) + source.backend
        price = _sane(model.price(given.today))
        if not whole_id(model.id) or not name.startswith(source.begins) or not _is_text(model, price):
            continue
        exact = () if source.backend else tuple(own_region(each) for each in model.match.exact())
        entry = Entry(
            provider=rows.provider,
            model=name,
            aliases=tuple(each for each in exact if each.startswith(source.begins)),
            context_tokens=model.context_window,
            price=price,
            free=sources.is_free(price),
            as_of=given.today,
            source=given.genai_name,
        )
        rows.add(entry)
        rows.patterns.append((model, name))


def _is_text(model: sources.PricedModel, price: Price | None) -> bool:
    """Say whether it writes text: it has a price for that, or one that changes with time."""
    if _OTHER_MEDIA.search(model.id):
        return False
    return isinstance(model.prices, tuple) if price is None else _charges_for_output(price)


_Tiered = TypeVar("_Tiered", bound=TieredRates)


def _sane(price: Price | None) -> Price | None:
    """Leave out rates that cannot be right: reading from a cache is never dearer than reading, nor writing cheaper."""
    if price is None:
        return None
    service_tiers = {word: _plausible(rates) for word, rates in price.service_tiers.items()}
    regions = {region: _plausible(rates) for region, rates in price.regions.items()}
    return replace(_plausible(price), service_tiers=service_tiers, regions=regions)


def _plausible(rates: _Tiered) -> _Tiered:
    tiers = tuple(_plausible_rates(tier) for tier in rates.tiers)
    return replace(_plausible_rates(rates), tiers=tiers)


_AnyRates = TypeVar("_AnyRates", bound=Rates)


def _plausible_rates(rates: _AnyRates) -> _AnyRates:
    """Leave out what contradicts the rate of the input; a cache that costs nothing to write is charged as input."""
    read, write = rates.cache_read, rates.cache_write_5m
    return replace(
        rates,
        cache_read=read if read is not None and read <= rates.input else None,
        cache_write_5m=write if write is not None and write >= rates.input else None,
        cache_write_1h=rates.cache_write_1h if write is not None and write >= rates.input else None,
    )


def _add_litellm(rows: _Rows, source: Source, given: Given) -> None:
    regional: dict[str, dict[str, TieredRates]] = {}
    listed = sorted((given.litellm or {}).items(), key=lambda item: (len(plain_names(item[0])), item[0]))
    for key, said in listed:
        of_it = said.get("litellm_provider") in source.litellm
        if not of_it or not sources.writes_text(said) or _OTHER_MEDIA.search(key):
            continue
        name = key.removeprefix(source.prefix)
        entry = sources.entry_of_litellm(rows.provider, name, said, given.today, given.litellm_name)
        placed = region_row(key)
        if placed is not None and entry.price is not None:
            regional.setdefault(placed[1], {})[placed[0]] = _standard(entry.price)
        elif _is_name(key, source) and name.startswith(source.begins) and _charges_for_output(entry.price):
            _join(rows, replace(entry, price=_sane(entry.price)), source)
    for model, regions in regional.items():
        entry = rows.find(model)
        if entry is not None and entry.price is not None:
            rows.put(replace(entry, price=_sane(_placed(entry.price, regions))))


def _charges_for_output(price: Price | None) -> bool:
    """Say whether a model writes: one that costs to read and nothing to write makes vectors."""
    return price is None or price.output > 0 or not price.input


def _placed(price: Price, regions: Mapping[str, TieredRates]) -> Price:
    """Give a price with those of regions; where only government's differ, any other region is charged as usual."""
    usual = _standard(price)
    differing = [region for region, rates in regions.items() if rates != usual]
    if not differing:
        return price
    if all("-gov-" in region for region in differing):
        return replace(price, regions={**{region: regions[region] for region in differing}, ANY_REGION: usual})
    return replace(price, regions=regions)


def _is_name(key: str, source: Source) -> bool:
    """Say whether a key of the map is a model's id: others stand for regions, commitments and fine-tunings."""
    name = key.removeprefix(source.prefix)
    foreign = bool(source.prefix) and not key.startswith(source.prefix) and "/" in key
    return not (foreign or name.startswith("ft:") or (source.flat and "/" in name))


def _join(rows: _Rows, entry: Entry, source: Source) -> None:
    """Put what the map says of a model with what is known of it, or beside it where it is another one."""
    known = rows.find(entry.model)
    if known is not None:
        rows.put(_filled(known, entry))
        return
    if source.patterns:
        fitting = [name for model, name in rows.patterns if model.match.fits(entry.model)]
        if fitting and (priced := rows.find(fitting[0])) is not None:
            entry = replace(entry, price=priced.price, source=_joint(priced.source, entry.source))
    for name in plain_names(entry.model):
        known = rows.find(name)
        if known is not None and (entry.price is None or _same(known.price, entry.price)):
            rows.put(_filled(known, replace(entry, deprecated_on=None)))
            return
    rows.add(entry)


_FILLED = (
    "context_tokens", "max_output_tokens", "streaming", "tools", "parallel_tools", "vision", "reasoning", "prefill",
    "structured_output", "deprecated_on", "successor",
)  # fmt: skip
"""What one source may know where another says nothing."""


def _filled(known: Entry, other: Entry) -> Entry:
    """Give an entry with what it leaves open from another one about the same model."""
    missing = {field: getattr(other, field) for field in _FILLED if getattr(known, field) is None}
    told = {field: value for field, value in missing.items() if value is not None}
    price = _richer(known.price, other.price)
    source = known.source
    if told and other.source not in source:
        source = _joint(source, other.source)
    if known.price is None and price is not None:
        source = other.source
    return replace(known, price=price, free=known.free or sources.is_free(price), source=source, **told)


def _joint(price_source: str, other_source: str) -> str:
    """Give the words for an entry whose price is of one source, and something else of another."""
    head = price_source.removeprefix("price: ").partition("; else: ")[0]
    rest = other_source.rpartition("; else: ")[2]
    return head if head == rest else f"price: {head}; else: {rest}"


def _richer(price: Price | None, other: Price | None) -> Price | None:
    """Give a price with the service tiers and regions that another knows, where both agree on the usual rates."""
    if price is None or other is None:
        return price or other
    if not _same(price, other):
        return price
    tiers = {word: _like(price, rates) for word, rates in other.service_tiers.items()} | dict(price.service_tiers)
    regions = {word: _like(price, rates) for word, rates in other.regions.items()} | dict(price.regions)
    return replace(price, service_tiers=tiers, regions=regions)


def _like(price: Price, rates: TieredRates) -> TieredRates:
    """Leave out tiers that the price itself does not have: they are of the past."""
    return rates if price.tiers else replace(rates, tiers=())


def _standard(price: Price) -> TieredRates:
    return TieredRates(**{field: getattr(price, field) for field in TieredRates.__struct_fields__})


def _same(price: Price | None, other: Price | None) -> bool:
    """Say whether two prices agree, as far as both go."""
    if price is None or other is None:
        return price is other
    pairs = [(getattr(price, field), getattr(other, field)) for field in Rates.__struct_fields__]
    return all(one == two for one, two in pairs if one is not None and two is not None)


# --- what stays ----------------------------------------------------------------------------------


def _kept(
    found: Mapping[tuple[str, str], Entry], old: Mapping[tuple[str, str], Entry], given: Given
) -> dict[tuple[str, str], Entry]:
    """Give what was found, and of the file before what a source that is absent now would have said."""
    if given.genai is not None and given.litellm is not None:
        return dict(found)
    kept: dict[tuple[str, str], Entry] = {}
    for key, entry in old.items():
        now = found.get(key) or next((found[key[0], name] for name in entry.aliases if (key[0], name) in found), None)
        if now is None:
            kept[key] = entry
        else:
            price = now.price if now.price is not None and not _same(now.price, entry.price) else entry.price
            kept[key] = replace(_filled(now, replace(entry, price=None)), model=entry.model,
                                aliases=entry.aliases, price=price)  # fmt: skip
    names = {(entry.provider, name) for entry in kept.values() for name in (entry.model, *entry.aliases)}
    for key, entry in found.items():
        free = tuple(name for name in entry.aliases if (key[0], name) not in names)
        if key not in names and not any((key[0], name) in names for name in plain_names(key[1])):
            kept[key] = replace(entry, aliases=free)
    return kept


def _with_hand(
    found: Mapping[tuple[str, str], Entry],
    overrides: list[Entry],
    before: stored.Catalog,
    replaced: dict[tuple[str, str], str],
) -> list[Entry]:
    """Give all entries, those by hand first of their provider; each with what the sources know beside."""
    by_name = {(entry.provider, name): key for key, entry in found.items() for name in (entry.model, *entry.aliases)}
    own = {(entry.provider, name): entry for entry in overrides for name in (entry.model, *entry.aliases)}
    taken: set[tuple[str, str]] = set()
    entries: list[Entry] = []
    for entry in overrides:
        keys = dict.fromkeys(by_name.get((entry.provider, name)) for name in _names_of(entry))
        same = [found[key] for key in keys if key is not None and own.get(key, entry) is entry]
        taken.update((other.provider, other.model) for other in same)
        entries.append(_by_hand(entry, same, own.keys(), before, replaced))
    entries += [_without(entry, own.keys()) for key, entry in found.items() if key not in taken | own.keys()]
    listed = origins()
    order = {source.provider: place for place, source in reversed([*enumerate(listed)])}
    return sorted(entries, key=lambda entry: order.get(entry.provider, len(listed)))


def _names_of(entry: Entry) -> list[str]:
    """Give the names under which a source may have a model that stands by hand."""
    names = [entry.model, *entry.aliases]
    return [*names, *(other for name in names for plain in plain_names(name) for other in (plain, f"{plain}-latest"))]


def _without(entry: Entry, own: Collection[tuple[str, str]]) -> Entry:
    return replace(entry, aliases=tuple(name for name in entry.aliases if (entry.provider, name) not in own))


def _by_hand(
    entry: Entry,
    found: list[Entry],
    own: Collection[tuple[str, str]],
    before: stored.Catalog,
    replaced: dict[tuple[str, str], str],
) -> Entry:
    told = entry
    stated: Price | None = None
    for other in found:
        missing = {field: getattr(other, field) for field in _FILLED if getattr(told, field) is None}
        told = replace(told, **{field: value for field, value in missing.items() if value is not None})
        stated = stated or other.price
        names = (other.model, *other.aliases)
        known = {entry.model, *entry.aliases}
        free = [name for name in names if (entry.provider, name) not in own and known.isdisjoint(plain_names(name))]
        told = replace(told, aliases=tuple(dict.fromkeys((*told.aliases, *free))))
    if stated is None:
        return told
    mark, row = digest(stated), before.row(entry.provider, entry.model)
    said_before = "" if row is None or entry.as_of > (row.as_of or before.as_of) else row.replaces
    if entry.price is not None and said_before not in ("", mark):
        replaced[entry.provider, entry.model] = said_before  # what by hand is of that time stays out
        other = next(each for each in found if each.price is not None)
        return replace(told, price=stated, as_of=other.as_of, source=other.source)
    replaced[entry.provider, entry.model] = mark
    return replace(told, price=entry.price and _richer(entry.price, stated))


def digest(price: Price) -> str:
    """Give the mark of what a source states."""
    return blake2b(msgspec.json.encode(_standard(price), order="sorted"), digest_size=4).hexdigest()


# --- what is installed ---------------------------------------------------------------------------


def installed(litellm: Path | None = None, today: date | None = None) -> Given:
    """Give what is installed; `litellm` is a copy of its map, where the package is not.

    Raises `ConfigError` where genai-prices is absent, and where a source has another form than is known.
    """
    if importlib.util.find_spec("genai_prices") is None:
        msg = "genai-prices is not installed: run `pip install genai-prices`, or give a file"
        raise ConfigError(msg)
    today = today or datetime.now(UTC).date()
    version = importlib.metadata.version("genai-prices")
    try:
        genai = sources.genai_providers(importlib.import_module("genai_prices.data").providers)
        found = litellm or _installed_map()
        cost_map = None if found is None else sources.cost_map(found.read_bytes())
    except (msgspec.MsgspecError, AttributeError, OSError) as error:
        msg = f"genai-prices {version} or litellm's cost map cannot be read: {error}"
        raise ConfigError(msg) from error
    return Given(genai, cost_map, f"genai-prices {version}, read {today}", f"litellm's cost map, read {today}", today)


def _installed_map() -> Path | None:
    spec = importlib.util.find_spec("litellm")
    places = (spec.submodule_search_locations or []) if spec else []
    return next((path for place in places if (path := Path(place, _COST_MAP)).is_file()), None)


def origins() -> tuple[Source, ...]:
    """Give where the models of each provider stand: `origins.json`."""
    return msgspec.json.decode(Path(__file__).with_name("origins.json").read_bytes(), type=tuple[Source, ...])


def by_hand() -> tuple[Entry, ...]:
    """Give the entries of `overrides.json`."""
    return msgspec.json.decode(Path(__file__).with_name("overrides.json").read_bytes(), type=tuple[Entry, ...])


def main(arguments: list[str]) -> None:
    """Write the catalog's file."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    if unknown := options.keys() - {"--litellm", "--output", "--today"}:
        sys.exit(f"unknown: {', '.join(unknown)}; {(__doc__ or '').splitlines()[0]}")
    target = Path(options.get("--output") or Path(__file__).with_name("data.json"))
    cost_map = Path(options["--litellm"]) if "--litellm" in options else None
    today = date.fromisoformat(options["--today"]) if "--today" in options else None
    before = stored.decode(Path(__file__).with_name("data.json").read_bytes())
    made = make(installed(cost_map, today), by_hand(), before)
    stored.decode(made.data, every_row=True)
    target.write_bytes(made.data)
    sys.stdout.write(f"{target}: {made.models} models, {made.new} new, {made.changed} with another price\n")


if __name__ == "__main__":
    main(sys.argv[1:])
