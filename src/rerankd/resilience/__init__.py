"""Living with stores that fail: a time budget for each call, a breaker that leaves a dead store alone, Redis itself.

Used by the score cache and by the rate limits. May import redis, nothing of the package's other layers.
"""
