"""Where settings and keys come from.

Contract: yields frozen values; knows the providers' rows, and no model, no transport and no middleware. `load` reads
the configuration by THE table of settings (`table`), `keys` finds credentials.
"""
