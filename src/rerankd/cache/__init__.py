"""Pair -> score that is known already.

In: keys over everything that a score depends on. Out: scores, or nothing. May import redis, never torch.
"""
