"""The product's own engine: torch alone, from token ids of a batch to one raw score a pair, on CPU and CUDA.

``engine.py`` keeps the contract and ``model.py`` is the whole network. ``plan.py`` lays a batch out;
``attention.py``, ``layers.py`` and ``linear.py`` compute, in the formats that ``numbers.py`` chooses;
``config.py``, ``weights.py`` and ``loading.py`` read the checkpoint; ``memory.py`` finds the token budget.
``sharing.py`` joins requests that begin alike.

On CUDA ``packed.py`` is the network, with the same weights: ``packing.py`` lays out, ``varlen.py`` attends,
``fusing.py`` compiles the small pieces, ``fp8.py`` multiplies in eight bits.
"""
