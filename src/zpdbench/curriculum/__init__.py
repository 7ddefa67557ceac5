"""Curricula: how hard an example is, how competent the model is, and which examples come next.

Free of torch, so that a new condition can be written and tested in milliseconds. `conditions` holds
the interface, `registry` finds conditions by name (also those of other packages).
"""
