import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from loomstream import errors
from loomstream.cli.exit_codes import MEANINGS, exit_code
from loomstream.cli.group import looms

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.LoomstreamError, 1),
        (errors.MiddlewareError, 1),
        (errors.BudgetExceeded, 1),
        (ValueError, 1),
        (errors.UsageError, 2),
        (errors.RequestError, 2),
        (errors.Unsupported, 2),
        (errors.ConfigError, 3),
        (errors.MissingKey, 3),
        (errors.UnknownProvider, 3),
        (errors.UnknownModel, 3),
        (errors.AuthFailed, 4),
        (errors.ProviderError, 5),
        (errors.BadRequest, 5),
        (errors.ContextTooLong, 5),
        (errors.ModelNotFound, 5),
        (errors.ContentFiltered, 5),
        (errors.RateLimited, 6),
        (errors.QuotaExhausted, 6),
        (errors.Overloaded, 6),
        (errors.ServerFault, 6),
        (errors.ConnectFailed, 7),
        (errors.TLSFailed, 7),
        (errors.ConnectionLost, 7),
        (errors.ConnectTimeout, 7),
        (errors.FirstEventTimeout, 7),
        (errors.DeadlineExceeded, 7),
        (errors.StreamTruncated, 8),
        (errors.BadFrame, 8),
        (errors.LimitExceeded, 8),
        (errors.UnexpectedContent, 8),
    ],
)
def test_an_error_has_the_code_of_its_kind(error: type[Exception], code: int) -> None:
    assert exit_code(error("why")) == code


def test_every_code_of_an_error_has_a_meaning() -> None:
    every = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert {exit_code(error("why")) for error in every} <= MEANINGS.keys()


def test_the_documentation_shows_this_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", DOCUMENTATION.read_text("utf-8"), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == MEANINGS


@pytest.mark.parametrize(
    "line",
    [
        "ask hello --max-tokens 0",
        "ask hello --max-tokens 1000000001",
        "ask hello --temperature hot",
        "bench local --runs 0",
        "chat --max-tokens 0",
        "completion csh",
        "cost hello --models gpt-4o",
        "cost hello --models openai:",
        "cost hello --max-tokens -1",
        "log --since soon",
        "log --totals colour",
        "models --can fly",
        "models --limit x",
        "simulate --fault nonsense",
        "simulate --fault status:429@x",
        "simulate --port 65536",
        "ui --port x",
    ],
)
def test_a_value_that_an_option_cannot_have_is_wrong_usage(line: str) -> None:
    result = CliRunner().invoke(looms, line.split())
    assert result.exit_code == 2, result.output
