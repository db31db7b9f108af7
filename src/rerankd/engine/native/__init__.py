"""The product's own engine: torch alone, from token ids of a batch to one raw score a pair, on CPU and CUDA.

``engine.py`` keeps the contract and ``model.py`` is the whole network. ``plan.py`` lays a batch out; ``attention.py``
says what attention is asked, ``stacks.py`` and ``tiles.py`` answer it. ``linear.py`` has the products, in the formats
that ``numbers.py`` chooses, ``layers.py`` what lies between them in torch; ``kernels.py`` has both in C.
``config.py``,
``weights.py`` and ``loading.py`` read the checkpoint; ``memory.py`` finds the token budget.
"""
