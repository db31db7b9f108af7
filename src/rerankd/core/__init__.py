"""The engine core: requests of token ids in, batches to the engine, scores out; synchronous, on one thread.

In: :class:`~rerankd.core.request.ScoreRequest`. Out: :class:`~rerankd.core.request.Output`. Knows no texts, no
asyncio and no HTTP. ``engine_core.py`` has the step.
"""
