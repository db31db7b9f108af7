"""The product's own engine: from the token ids of a batch to one raw score a pair, on CPUs and CUDA devices.

========================== ============================================== ===================== ====================
file                       concept                                        device, ISA           fallback
========================== ============================================== ===================== ====================
engine.py                  the engine contract                            any
config.py, rope_config.py  config.json, checked; what families differ in  any
safetensors_reader.py      tensors by name, memory-mapped                 any
weight_loader.py           tensors to layers                              any
models/decoder.py          the decoder and its last-token head            any
rope.py                    RoPE, YaRN                                     any
forward_batch.py           one batch laid out: tokens, positions          any
kv_cache.py                keys and values of cached prefixes, by slot    any
attention.py               varlen attention (protocol)                    any
ops.py                     operations fused between GEMMs (protocol)      any
activations.py             activations, quantised or packed               any
precision.py               dtypes of weights, activations, residual       any
backend.py                 one object a kind of device (protocol), choice any
token_budget.py            tokens of one forward pass                     any
malloc_tuning.py           glibc's malloc thresholds                      CPU                   glibc's own
cpu/backend.py             the tables of what a CPU can do                CPU
cpu/library.py, csrc/      fused operations, GEMMs, attention in C        CPU                   torch
cpu/selftest.py            the C kernels against torch, at start          CPU                   torch
cpu/linear_amx.py          GEMM with epilogue: bf16, BF16x3, int8         AMX                   next rows
cpu/linear_avx2.py         GEMM: float32 by float32 or bfloat16           AVX2                  linear_torch.py
cpu/linear_int8.py         GEMM: u8 by s8, zero point 128                 AVX2, oneDNN          oneDNN
cpu/linear_torch.py        GEMM by torch                                  CPU
cpu/attention_varlen.py    varlen attention in C, online softmax          CPU; bf16: AMX        attention_sdpa.py
cpu/attention_sdpa.py      padded batches for torch's attention           any
cpu/torch_ops.py           fused operations in torch                      any
cuda/backend.py            what a CUDA device can do                      CUDA
cuda/linear.py             GEMM by cuBLAS; fp8 with scales                CUDA; fp8: 8.9        bfloat16
cuda/kernels.py, ops.py    fused operations and attention in Triton       CUDA 8.0              torch
cuda/attention_metadata.py what attention works on, task by task          CUDA 8.0              attention_sdpa.py
cuda/graph_runner.py       CUDA graphs of bucketed sizes                  CUDA 8.0              eager
========================== ============================================== ===================== ====================

Which prefixes are shared and which are cached is decided in `rerankd.core`; here they come as a forest of segments.
"""
