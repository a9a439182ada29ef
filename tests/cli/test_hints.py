import pytest

from loomstream import errors
from loomstream.cli.hints import with_hint


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.RateLimited("too fast", retry_after_s=20.0), "too fast (ask again in 20 s)"),
        (errors.RateLimited("too fast"), "too fast (ask again later)"),
        (errors.FirstEventTimeout("too slow"), "too slow (--timeout S sets the limit)"),
        (errors.DeadlineExceeded("too long"), "too long (--total-timeout S sets the limit)"),
        (errors.ConfigError("says all"), "says all"),
        (errors.BadRequest("no", retry_after_s=1.0), "no"),
    ],
)
def test_an_error_says_what_to_do_next(error: errors.LoomstreamError, sentence: str) -> None:
    assert with_hint(error) == sentence
