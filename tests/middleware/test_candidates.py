"""Data residency: what may send elsewhere than allowed is refused when a combinator is made, also inside another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loomstream.errors import ConfigError
from loomstream.handler import Handler, compose
from loomstream.middleware.balance import balance
from loomstream.middleware.candidates import Candidate, Place, Placed
from loomstream.middleware.experiment import experiment, shadow
from loomstream.middleware.failover import failover
from loomstream.middleware.hedge import hedge
from loomstream.middleware.retry import retry
from loomstream.middleware.route import route
from loomstream.testing import scripted_model, text_events

HANDLER = scripted_model(text_events("x")).handler
EU = Candidate("eu", HANDLER, "bedrock", "m", "eu-west-1")
US = Candidate("us", HANDLER, "bedrock", "m", "us-east-1")
OTHER = Candidate("other", HANDLER, "openai", "m")
NOWHERE = Candidate("nowhere", HANDLER)

COMBINATORS: list[Callable[..., Handler]] = [failover, balance, hedge, experiment, shadow, route]
all_combinators = pytest.mark.parametrize("combine", COMBINATORS, ids=lambda combine: combine.__name__)


@all_combinators
def test_what_is_allowed_is_taken(combine: Callable[..., Placed]) -> None:
    made = combine([EU, OTHER._replace(region="eu-west-1")], allowed_providers=["bedrock", "openai"])
    assert set(made.places) == {Place("bedrock", "eu-west-1"), Place("openai", "eu-west-1")}
    combine([EU, OTHER._replace(region="eu-west-1")], allowed_regions={"eu-west-1"})


@all_combinators
@pytest.mark.parametrize(
    ("candidates", "allowed", "words"),
    [
        ([EU, OTHER], {"allowed_providers": ["bedrock"]}, "'other' may send to the provider 'openai'.*: bedrock$"),
        ([EU, US], {"allowed_regions": ["eu-west-1"]}, "'us' may send to the region 'us-east-1' by bedrock"),
        ([EU, OTHER], {"allowed_regions": ["eu-west-1"]}, "'other' may send to no known region by openai"),
        ([EU, US], {"allowed_providers": []}, "only these providers are allowed: none"),
        ([EU, US], {"allowed_providers": "bedrock"}, r"allowed_providers='bedrock': give a list"),
    ],
)
def test_what_is_not_allowed_is_refused(
    combine: Callable[..., Handler], candidates: list[Candidate], allowed: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        combine(candidates, **allowed)


@all_combinators
def test_what_does_not_say_where_it_sends_is_refused(combine: Callable[..., Handler]) -> None:
    with pytest.raises(ConfigError, match=r"it is not known where 'nowhere' sends|does not say its provider"):
        combine([EU, NOWHERE], allowed_providers=["bedrock"])


@pytest.mark.parametrize("inner", COMBINATORS, ids=lambda made: made.__name__)
def test_the_allowed_places_bind_combinators_within(inner: Callable[..., Handler]) -> None:
    nested = Candidate("pool", inner([EU, US]))
    failover([OTHER, nested], allowed_providers=["openai", "bedrock"])
    with pytest.raises(ConfigError, match="'pool' may send to the region 'us-east-1'"):
        failover([EU, nested], allowed_regions=["eu-west-1"])
    lying = nested._replace(provider="bedrock", region="eu-west-1")
    with pytest.raises(ConfigError, match="'pool' may send to the region 'us-east-1'"):
        failover([EU, lying], allowed_regions=["eu-west-1"])


def test_one_unknown_place_is_a_place_of_it_that_nobody_can_overrule() -> None:
    half = failover([US, NOWHERE])
    for claim in ({}, {"provider": "bedrock", "region": "eu-west-1"}):
        with pytest.raises(ConfigError, match="'half' may send to the region 'us-east-1'"):
            failover([EU, Candidate("half", half, **claim)], allowed_regions=["eu-west-1"])
        with pytest.raises(ConfigError, match="'half' may send to no known provider"):
            failover([EU, Candidate("half", half, **claim)], allowed_providers=["bedrock"])
    assert failover([NOWHERE]).places == ()


def test_middleware_around_a_combinator_is_told_by_placed() -> None:
    chain = failover([EU, US])
    around = compose(chain, retry())
    with pytest.raises(ConfigError, match="not known where 'pool' sends"):
        failover([EU, Candidate("pool", around)], allowed_regions=["eu-west-1"])
    with pytest.raises(ConfigError, match="'pool' may send to the region 'us-east-1'"):
        failover([EU, Candidate("pool", Placed(around, chain.places))], allowed_regions=["eu-west-1"])
