"""The product's own engine: torch alone, from token ids of a batch to one raw score a pair, on CPU and CUDA.

``engine.py`` keeps the contract and ``model.py`` is the whole network. ``plan.py`` lays a batch out; ``attention.py``
says what attention is asked. ``linear.py`` has the products, in the formats that ``numbers.py`` chooses, and
``layers.py`` what lies between them. ``config.py``, ``weights.py`` and ``loading.py`` read the checkpoint;
``memory.py`` finds the token budget; ``sharing.py`` joins requests that begin alike, and ``kept.py`` keeps what they
begin with.

On a CPU ``cpu`` has the pieces in C, ``kernel_attention.py`` lays out for them, and ``tiled.py`` multiplies
where the processor has tiles; where it has AVX2 and nothing wider, ``linear.py`` has products of its
own. On CUDA ``cuda`` has the pieces and attention, and ``fp8.py`` multiplies in eight bits. Where neither is to be
had, ``stacks.py`` attends, in torch.
"""
