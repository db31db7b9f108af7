"""The blocks of docs/python-client.md, run against a real server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.live import LiveServer

PAGE = (Path(__file__).parents[3] / "docs" / "python-client.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_the_page_works(block: str, tiny_server: LiveServer) -> None:
    assert "http://127.0.0.1:8000" in block
    exec(compile(block.replace("http://127.0.0.1:8000", tiny_server.url), "python-client.md", "exec"), {})
