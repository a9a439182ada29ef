"""Middleware: handler to handler, one file each.

Contract: see `loomstream.handler`: nothing is open across a yield to the consumer. Middleware may read the catalog
and knows no model, transport or dialect.
"""

from loomstream.handler import compose, stage

__all__ = ("compose", "stage")
