"""The Python client. Imports httpx and the standard library alone."""
