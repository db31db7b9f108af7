"""Token ids -> scores.

In: a flat :class:`~rerankd.engine.base.Batch`. Out: one logit a pair. May import torch, never the web side.
"""
