"""Amounts that callers share: bytes, requests, characters and tokens, bounded and fair.

In: a tenant and an amount. Out: nothing, or Overloaded. Knows neither HTTP nor models.
"""
