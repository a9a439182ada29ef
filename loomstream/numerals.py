"""Whether what was given for a limit is a number at all, before anything is compared with it.

Contract: pure, and raises nothing, whatever it is asked about: a text from an environment variable, None, NaN, an
integer that no float can hold. The caller says what the number is for.
"""

from __future__ import annotations

import math
import sys
from numbers import Integral, Real
from typing import cast


def is_number(value: object, *, infinite: bool = False) -> bool:
    """Say whether this is a finite number, or where `infinite` also infinity; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    number = cast("float", value)
    return bool(abs(number) <= sys.float_info.max) or (infinite and number == math.inf)


def is_whole(value: object) -> bool:
    """Say whether this is a finite number, and written as a whole one."""
    return is_number(value) and isinstance(value, Integral)
