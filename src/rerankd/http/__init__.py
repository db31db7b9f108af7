"""The ASGI shell.

In: HTTP. Out: HTTP. Knows dialects and the service, nothing of the model; never imports torch.
"""
