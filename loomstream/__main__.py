"""`python -m loomstream`: the same as `looms`."""

from __future__ import annotations

from loomstream.cli import main

if __name__ == "__main__":
    main()
