"""Keys and their arms: the same everywhere, as many in each as the weights say, nobody moved by a ramp."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest

from rerankd.experiments.assignment import Controls, assign, coin_of, place, unit_of
from rerankd.experiments.interleaving import team_draft, winner

ALL = Controls(traffic=1.0)
WEIGHTS = {"control": 1.0, "candidate": 3.0}


def arm(key: str, controls: Controls = ALL) -> str | None:
    found = assign("colours", WEIGHTS, key, controls)
    return found.arm if found else None


@pytest.mark.parametrize("keys", [10_000, pytest.param(100_000, marks=pytest.mark.thorough)])
def test_the_split_of_many_keys_is_that_of_the_weights(keys: int) -> None:
    counts = Counter(arm(f"user-{number}") for number in range(keys))
    # Five standard deviations of a binomial.
    assert abs(counts["control"] - keys / 4) < 5 * (keys * 0.25 * 0.75) ** 0.5
    assert sum(counts.values()) == counts["control"] + counts["candidate"] == keys


def test_another_process_says_the_same_of_every_key() -> None:
    code = (
        "from rerankd.experiments.assignment import Controls, assign; import hashlib\n"
        "arms = [assign('colours', {'control': 1.0, 'candidate': 3.0}, f'user-{n}', Controls(1.0)).arm"
        " for n in range(5_000)]\n"
        "print(hashlib.sha256(','.join(arms).encode()).hexdigest())"
    )
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    import hashlib

    here = hashlib.sha256(",".join(str(arm(f"user-{n}")) for n in range(5_000)).encode()).hexdigest()
    assert told == {here + "\n"}


def test_a_ramp_adds_keys_and_moves_none() -> None:
    keys = [f"user-{number}" for number in range(5_000)]
    before = {key: arm(key, Controls(0.2)) for key in keys}
    after = {key: arm(key, Controls(0.6)) for key in keys}
    assert all(after[key] == found for key, found in before.items() if found is not None)
    assert 800 < sum(found is not None for found in before.values()) < 1_200
    assert 2_800 < sum(found is not None for found in after.values()) < 3_200


def test_two_experiments_share_no_split() -> None:
    both = Counter(
        (assign("one", WEIGHTS, key, ALL).arm, assign("two", WEIGHTS, key, ALL).arm)  # type: ignore[union-attr]
        for key in map(str, range(20_000))
    )
    assert both["control", "control"] == pytest.approx(20_000 / 16, rel=0.15)


def test_stop_and_pin() -> None:
    key = next(str(number) for number in range(100) if arm(str(number)) == "control")
    pinned = assign("colours", WEIGHTS, key, Controls(0.0, pins={key: "candidate"}))
    assert pinned is not None
    assert pinned.arm == "candidate"
    assert pinned.pinned
    assert arm(key, Controls(1.0, stopped=True, pins={key: "candidate"})) is None
    assert arm(key, Controls(1.0, pins={key: "gone"})) == "control"


def test_an_arm_without_weight_takes_nobody() -> None:
    weights = {"a": 0.0, "b": 1.0, "c": 0.0}
    assert {found.arm for n in range(2_000) if (found := assign("x", weights, str(n), ALL))} == {"b"}


def test_keys_of_any_kind_are_hashed() -> None:
    assert 0 <= place("x", "arm", "\ud800 …") < 1
    assert len(unit_of("x", "me@example.org")) == 16
    assert unit_of("x", "a") != unit_of("x", "b")
    # The lengths are hashed too: no key can be taken for another's.
    assert place("ab", "c", "d") != place("a", "bc", "d")


def test_a_draft_keeps_every_document_once_and_each_team_in_its_order() -> None:
    random.seed(1)
    for seed in range(50):
        first, second = random.sample(range(30), 20), random.sample(range(30), 25)
        drafted = team_draft(first, second, random.Random(seed))
        assert sorted(document for document, _ in drafted) == sorted({*first, *second})
        for team, ranking in enumerate((first, second)):
            own = [document for document, whose in drafted if whose == team]
            assert own == sorted(own, key=ranking.index)
        # A round that both can fill has one of each, where its first was not the same for both.
        teams = [team for _, team in drafted[:10]]
        assert all(one is None or {one, other} == {0, 1} for one, other in zip(teams[::2], teams[1::2], strict=True))


def test_the_same_key_and_query_make_the_same_draft() -> None:
    def drafted(key: str, query: str) -> list[tuple[int, int | None]]:
        return team_draft(range(10), range(9, -1, -1), coin_of("x", key, query))

    assert drafted("me", "capital") == drafted("me", "capital")
    assert len({tuple(drafted("me", str(query))) for query in range(20)}) > 5


def test_what_both_show_alike_is_nobodys() -> None:
    alike = team_draft(range(10), range(10), coin_of("x", "me", "query"))
    assert alike == [(document, None) for document in range(10)]
    # The first round shows 1 and 2 whatever the coin says; in the second each has one; in the third they agree again.
    drafted = team_draft([1, 2, 3, 4, 5, 6], [1, 2, 4, 3, 5, 6], coin_of("x", "me", "query"))
    assert [team for _, team in drafted] in ([None, None, 0, 1, None, None], [None, None, 1, 0, None, None])


@pytest.mark.parametrize("clicked", range(6))
def test_clicks_on_a_place_whatever_stands_there_favour_no_team(clicked: int) -> None:
    random.seed(2)
    wins = 0
    for query in range(4_000):
        first, second = random.sample(range(6), 6), list(range(6))
        # Near the truth, so that rounds of each kind occur.
        second[query % 5 : query % 5 + 2] = reversed(second[query % 5 : query % 5 + 2])
        first = first if query % 2 else list(range(6))
        drafted = team_draft(first, second, coin_of("x", "me", str(query)))
        shown = [document for document, _ in drafted]
        wins += winner([team for _, team in drafted], {shown[clicked]}, shown, 0, 1)
    assert abs(wins) < 4 * 4_000**0.5


def test_documents_of_one_ranking_alone_are_its_teams() -> None:
    assert sorted(team_draft([1], [], random.Random(0))) == [(1, 0)]
    assert [team for _, team in team_draft([1, 2], [1], random.Random(0))] == [None, 0]


def test_the_winner_has_more_liked_documents() -> None:
    assert winner(["a", "b", "a"], {7, 9}, [7, 8, 9], "a", "b") == 1
    assert winner(["a", "b", "a"], {8}, [7, 8, 9], "a", "b") == -1
    assert winner(["a", "b", "a"], {7, 8}, [7, 8, 9], "a", "b") == 0
    assert winner(["both", "b", "a"], {7, 8}, [7, 8, 9], "a", "b") == -1
