"""The native engine on NVIDIA cards: rows without padding, kernels in Triton, small passes recorded and replayed."""
