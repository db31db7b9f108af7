"""C-05: somebody else fills the card while we score. `make faults` skips it: `pytest -m gpu tests/faults`."""

from __future__ import annotations

import asyncio
import gc

import pytest
import torch
from tests.figures import Measured

from rerankd.service.runtime import RerankService
from rerankd.settings import Settings
from rerankd.types import CallContext, RerankRequest, RerankResult

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DOCUMENTS = tuple(f"document {number} " + "word " * 400 for number in range(400))


async def scored(service: RerankService, query: str) -> RerankResult:
    (result,) = await service.rerank(
        [RerankRequest(query, DOCUMENTS)], CallContext(query, asyncio.get_running_loop().time() + 120)
    )
    assert isinstance(result, RerankResult)
    return result


@pytest.mark.promise("C-05")
async def test_a_full_card_costs_batches_and_no_scores(measured: Measured) -> None:
    service = RerankService(Settings(device="cuda", cache="off"))
    await service.start()
    before = await scored(service, "query")
    torch.cuda.empty_cache()
    base = torch.cuda.memory_allocated()
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 64 * 1024**2, dtype=torch.uint8, device="cuda")
    beside = await scored(service, "query")
    failures = service.metrics.registry.get_sample_value(
        "reranker_engine_failures_total", {"model": "tiny", "kind": "out_of_memory"}
    )
    del hog
    gc.collect()
    torch.cuda.empty_cache()
    after = torch.cuda.memory_allocated()
    await service.stop()
    measured(
        "C-05",
        "the card is full but for 64 MB",
        "all scored, memory back to base +- 5 %",
        f"{len(beside.errors)} errors, {failures or 0:.0f} OOM, {base / 1e6:.0f} -> {after / 1e6:.0f} MB",
    )
    assert not beside.errors
    assert [place.score for place in beside.scores] == pytest.approx(
        [place.score for place in before.scores], abs=2e-3
    )
    assert failures
    assert after <= base * 1.05
