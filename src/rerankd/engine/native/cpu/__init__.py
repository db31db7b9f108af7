"""The native engine on CPUs: GEMMs and attention by instruction set, in C where there is a kernel, else in torch."""
