"""The native engine on NVIDIA GPUs: Triton kernels, varlen attention, and CUDA graphs for small batches."""
