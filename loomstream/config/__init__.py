"""Where settings and keys come from.

Contract: yields frozen values; knows no model, no transport and no provider's row. `keys` finds credentials.
"""
