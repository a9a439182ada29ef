"""The timer that has a waiting line look for Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from loomstream.cli.chat_input import _interrupts_are_seen

if not hasattr(signal, "setitimer"):
    pytest.skip("NOT TESTED: Windows has no interval timer", allow_module_level=True)


@pytest.mark.parametrize("name", ["signal", "setitimer"])
def test_a_ctrl_c_in_between_leaves_nothing_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(signal, name, interrupted_after(getattr(signal, name)))
    with pytest.raises(KeyboardInterrupt), _interrupts_are_seen():
        pytest.fail("it was interrupted before")
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 or signal.getitimer(signal.ITIMER_REAL)[1] == 0


def interrupted_after(do: Callable[..., object]) -> Callable[..., object]:
    """Give what does it, and the first time is interrupted then."""
    done: list[object] = []

    def doing(*arguments: object) -> object:
        done.append(do(*arguments))
        if len(done) == 1:
            raise KeyboardInterrupt
        return done[-1]

    return doing
