"""The native engine on CPUs: the C kernels (``csrc``), the library that holds them, and their self-test."""
