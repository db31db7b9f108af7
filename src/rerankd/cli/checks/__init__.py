"""``rerankd doctor``: what this machine can do, and whether a running server serves its model right.

check.py        one finding
machine.py      processor, kernels, GPU, model, memory, port, Redis
served.py       a running server, asked for pairs whose order is known
known_pairs.py  those pairs
asking.py       one call of a server of any make, and its scores
"""
