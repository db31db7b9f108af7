"""JSON of a dialect <-> RerankRequest / RerankResult.

In: bytes. Out: requests; and back. Pure functions: no I/O, no torch, no web framework.
"""
