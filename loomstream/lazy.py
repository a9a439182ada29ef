"""The public names of a package, each loaded on first use.

    if not TYPE_CHECKING:  # a checker would take any misspelt name for an object
        __getattr__ = lazy(globals(), {"events": ("Start", "Stop")}, modules={"errors"})

Contract: importing the package imports none of the homes. A name that has been loaded stays in the package, so that
this is asked once for it. Knows no other module of loomstream.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as type checkers know it; `typing` would take most of the time that `import loomstream` takes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


def lazy(
    namespace: dict[str, object], homes: Mapping[str, Collection[str]], modules: Collection[str] = ()
) -> Callable[[str], object]:
    """Give the `__getattr__` of the package whose `globals()` these are.

    `homes` are the names that each of its modules has, `modules` those that can be reached as attributes themselves.
    For any other name it raises `AttributeError`, as Python does.
    """
    package = namespace["__name__"]
    home_of = {name: module for module, names in homes.items() for name in names}

    def load(name: str) -> object:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name not in home_of:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        namespace[name] = getattr(importlib.import_module(f"{package}.{home_of[name]}"), name)
        return namespace[name]

    return load
