"""rerankd.service.lifecycle: which state follows which, and what each one answers."""

from __future__ import annotations

import pytest

from rerankd.errors import Draining, EngineDead, NotReady
from rerankd.service.lifecycle import Lifecycle, State


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle()


def test_a_new_server_lives_but_is_not_ready(lifecycle: Lifecycle) -> None:
    assert lifecycle.is_alive
    assert not lifecycle.is_ready
    with pytest.raises(NotReady):
        lifecycle.check_accepting()


@pytest.mark.parametrize("state", [State.READY, State.DEGRADED])
def test_a_ready_or_degraded_server_answers(lifecycle: Lifecycle, state: State) -> None:
    lifecycle.move_to(state)
    lifecycle.check_accepting()
    assert lifecycle.is_ready


def test_a_draining_server_is_not_ready_and_refuses_after_its_grace(lifecycle: Lifecycle) -> None:
    lifecycle.move_to(State.READY)
    lifecycle.move_to(State.DRAINING)
    assert not lifecycle.is_ready
    lifecycle.check_accepting()
    lifecycle.end_grace()
    with pytest.raises(Draining):
        lifecycle.check_accepting()


def test_draining_cannot_become_ready_again(lifecycle: Lifecycle) -> None:
    lifecycle.move_to(State.DRAINING)
    lifecycle.move_to(State.READY)
    assert lifecycle.state is State.DRAINING


def test_nothing_leads_back_from_death(lifecycle: Lifecycle) -> None:
    lifecycle.move_to(State.DEAD, "illegal access")
    lifecycle.move_to(State.READY)
    assert (lifecycle.state, lifecycle.reason, lifecycle.is_alive) == (State.DEAD, "illegal access", False)
    with pytest.raises(EngineDead):
        lifecycle.check_accepting()


def test_listeners_hear_of_every_change(lifecycle: Lifecycle) -> None:
    heard: list[State] = []
    lifecycle.on_change(heard.append)
    lifecycle.move_to(State.READY)
    lifecycle.move_to(State.DRAINING)
    assert heard == [State.READY, State.DRAINING]
