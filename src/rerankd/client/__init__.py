"""The Python client: a query and documents in, ranked results out. Imports httpx and the standard library alone."""

from rerankd.client.async_client import AsyncClient
from rerankd.client.errors import ClientError
from rerankd.client.json_client import RerankerClient
from rerankd.client.sync_client import Client
from rerankd.client.values import (
    Document,
    DocumentError,
    Passage,
    Query,
    RankedResults,
    Result,
    ServedModel,
    Timeout,
    Usage,
)

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Document",
    "DocumentError",
    "Passage",
    "Query",
    "RankedResults",
    "RerankerClient",
    "Result",
    "ServedModel",
    "Timeout",
    "Usage",
]
