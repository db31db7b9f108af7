"""What ``rerankd serve`` says on a terminal once it is ready: what it serves, where, how fast, and a call to copy."""

from __future__ import annotations

import rerankd
from rerankd.http.server import Ready
from rerankd.printable import printable
from rerankd.settings import Settings

_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104
_BODY = '{"query": "capital of France", "documents": ["Berlin is in Germany.", "Paris is the capital of France."]}'


def greeting(ready: Ready, settings: Settings) -> str:
    """The lines, without colours and without secrets."""
    host = "127.0.0.1" if ready.host in _EVERYWHERE else ready.host
    address = f"http://{f'[{host}]' if ':' in host else host}:{ready.port}{settings.root_path.rstrip('/')}"
    has_keys = bool(settings.api_keys.strip() or settings.api_keys_file)
    key = " -H 'Authorization: Bearer KEY'" if has_keys else ""
    lines = [f"rerankd {rerankd.__version__}, ready in {ready.seconds:.1f} s", ""]
    for name, info in ready.engines.items():
        size = f", {info.parameters / 1e6:,.0f} M parameters" if info.parameters else ""
        lines.append(f"  {name:<12}  {info.dtype} on {info.device}{size}")
        lines.append(f"  {'':<12}  {info.engine}: {info.details}")
    lines += ["", f"  API           {address}", f"  Documentation {address}/docs"]
    if settings.playground:
        lines.append(f"  Playground    {address}/playground")
    lines += ["", f"  curl {address}/rerank{key} -H 'Content-Type: application/json' \\", f"    -d '{_BODY}'", ""]
    return "\n".join(printable(line) for line in lines)
