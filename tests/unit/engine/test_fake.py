from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from tests.scheduling import ids

from rerankd.core.prefix_tree import PrefixTree
from rerankd.engine.base import Batch, EngineFault, EngineOutOfMemory
from rerankd.engine.fake import FakeEngine, FakeScript, fake_logit
from rerankd.errors import ConfigurationError


def batch(*tails: tuple[int, ...], prefix: tuple[int, ...] = (1, 2)) -> Batch:
    tree = PrefixTree()
    at = tree.insert(ids(*prefix))
    for tail in tails:
        tree.add_pair(at, ids(*tail))
    return tree.layout()


def test_a_pair_has_one_score_however_its_prefix_is_cut() -> None:
    engine = FakeEngine()
    cuts = [engine.score(batch((1, 2, 3, 4)[cut:], prefix=(1, 2, 3, 4)[:cut]))[0] for cut in range(4)]
    assert set(cuts) == {np.float32(fake_logit(ids(1, 2, 3, 4)))}


def test_a_pair_has_one_score_alone_and_in_a_crowd() -> None:
    engine = FakeEngine()
    crowd = engine.score(batch(*((n, n + 1) for n in range(50))))
    assert crowd[7] == engine.score(batch((7, 8)))[0]
    assert crowd.dtype == np.float32
    assert len(set(crowd.tolist())) == 50
    assert np.all(np.abs(crowd) <= 6)


def test_a_marker_counts_as_whole_ids_only() -> None:
    engine = FakeEngine(script=FakeScript(nan_on=(256, 512)))
    # The bytes of 256 and 512 also occur, shifted, in the bytes of 1 and 2 between zeros.
    scores = engine.score(batch((0, 1, 2), (9, 256, 512), (65536, 131072)))
    assert np.isnan(scores).tolist() == [False, True, False]


def test_faults_follow_the_script() -> None:
    good = batch((3, 4))
    with pytest.raises(RuntimeError):
        FakeEngine(script=FakeScript(fail_on=(3, 4))).score(good)
    with pytest.raises(EngineOutOfMemory):
        FakeEngine(script=FakeScript(oom_above_tokens=3)).score(good)
    assert FakeEngine(script=FakeScript(oom_above_tokens=4)).score(good).shape == (1,)
    assert FakeEngine(script=FakeScript(missing_scores=1)).score(good).shape == (0,)
    assert np.isinf(FakeEngine(script=FakeScript(inf_on=(4,))).score(good)[0])


def test_a_dead_engine_stays_dead() -> None:
    engine = FakeEngine(script=FakeScript(die_on=(9,)))
    engine.score(batch((1,)))
    for tail in ((9,), (1,)):
        with pytest.raises(EngineFault):
            engine.score(batch(tail))
    assert not engine.health()


def test_an_engine_may_die_after_some_passes() -> None:
    engine = FakeEngine(script=FakeScript(die_after=2))
    for _ in range(2):
        engine.score(batch((1,)))
    with pytest.raises(EngineFault):
        engine.score(batch((1,)))


def test_a_held_engine_waits_for_its_release() -> None:
    engine = FakeEngine()
    seen = engine.record()
    engine.hold()
    thread = threading.Thread(target=engine.score, args=(batch((1,)),))
    thread.start()
    thread.join(timeout=0.05)
    assert thread.is_alive()
    engine.release()
    thread.join(timeout=1)
    assert not thread.is_alive()
    assert (engine.passes, engine.pairs, len(seen)) == (1, 1, 1)


def test_time_passes_by_batch_and_by_token() -> None:
    started = time.monotonic()
    FakeEngine(script=FakeScript(seconds_per_batch=0.02, seconds_per_token=0.01)).score(batch((1,)))
    assert time.monotonic() - started >= 0.05


def test_a_script_is_read_from_a_setting() -> None:
    script = FakeScript.parse("seconds_per_batch=0.5,fail_on=17-4,die_after=3")
    assert script == FakeScript(seconds_per_batch=0.5, fail_on=(17, 4), die_after=3)
    assert FakeScript.parse("") == FakeScript()


@pytest.mark.parametrize("text", ["fial_on=3", "die_after=soon", "fail_on=", "fail_on"])
def test_a_wrong_script_is_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigurationError, match="fake engine"):
        FakeScript.parse(text)
