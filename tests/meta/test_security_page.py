"""Every sentence of SECURITY.md that promises something has a test, and every other one a word why it has none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LIST = """
# The list of promises
Text from outside can never become
    security/test_prompt_injection.py::test_every_added_token_stays_text_in_every_field
Every route but
    security/test_keys.py::test_every_route_needs_a_key_except_the_list
Every spelling of a path
    security/test_keys.py::test_no_spelling_of_a_path_opens_it
A page in a browser cannot
    unit/http/test_hosts.py::test_a_local_server_without_keys_has_no_foreign_names
Programs may leave the type out
    unit/http/test_body_limit.py::test_json_by_any_of_its_names_is_read
Keys are hashed when they are read
    unit/http/test_auth.py::test_keys_have_a_name_and_only_their_digest_is_kept
Keys and texts are never logged
    security/test_secrets.py::test_keys_and_texts_are_never_shown
Bodies, headers, JSON depth
    security/test_hostile_json.py::test_a_hostile_body_is_a_4xx_on_every_path
Time and memory grow with
    security/test_growth_served.py::test_cost_is_linear_up_to_the_largest_body
Large bodies are read
    security/test_loop_time.py::test_nothing_holds_the_event_loop
Requests sent ahead
    security/test_pipelining.py::test_requests_ahead_of_their_answers_cost_no_more_than_their_bytes
Weights are read from safetensors
    security/test_hostile_checkpoints.py::test_code_and_pickles_beside_the_weights_are_never_touched
An error never repeats
    unit/http/test_error_handler.py::test_an_unforeseen_exception_tells_the_request_id_and_nothing_else
No score is older than
    unit/test_fingerprint.py::test_a_flipped_bit_in_any_tensor_changes_it
What a call held is gone
    security/test_given_back.py::test_a_call_leaves_nothing_for_the_garbage_collector
C kernels that are missing
    faults/test_kernels.py::test_a_server_without_kernels_answers_and_says_so
What it does not promise
    not promised
Scores are a judgement
    not promised
# Administration
`/admin` is closed until
    unit/http/test_admin_routes.py::test_without_admin_keys_nobody_is_an_admin
It has no listener
    because
# Rotating keys
`api_keys_file` is looked at
    unit/http/test_auth.py::test_two_changes_within_the_resolution_of_the_clock_are_both_seen
A file that is missing, half written
    unit/http/test_auth.py::test_a_key_file_that_is_broken_is_logged_without_its_content
An emptied file
    unit/http/test_auth.py::test_an_emptied_key_file_closes_the_server
Replace the file by renaming
    because
`api_keys` and `admin_keys` are read once
    because
# Reload
`/admin/reload` loads beside
    unit/service/test_runtime.py::test_a_reload_of_all_swaps_all_or_none
# Who calls
Rates and fair shares go by
    unit/http/test_auth.py::test_the_caller_is_known_by_the_name_of_the_key
`X-Forwarded-For` counts only
    unit/http/test_forwarded.py::test_the_caller_is_the_first_address_from_the_right_that_is_no_trusted_proxy
An IPv6 caller
    unit/http/test_forwarded.py::test_all_addresses_of_one_network_are_one_caller
# Rate limits
All windows of a caller
    unit/service/test_rates.py::test_a_request_that_fits_one_window_and_not_the_other_is_charged_in_neither
While Redis is out of reach
    unit/service/test_rates.py::test_without_redis_callers_are_limited_by_each_replica_and_none_waits
# Connections
There is no bound on connections
    not promised
What one connection may hold
    security/test_slow_clients.py::test_slow_clients_are_closed_in_time_and_hurt_nobody
# What other callers can learn
A shared score cache tells
    not promised
The count stays in
    because
Where callers must not learn
    unit/service/test_rerank_cache.py::test_callers_share_the_cache_unless_they_are_to_be_kept_apart
# Scores in Redis
Without `cache_secret`
    unit/cache/test_codec.py::test_every_single_flipped_bit_is_found
With `cache_secret`
    unit/cache/test_codec.py::test_a_score_that_somebody_made_up_is_corrupt_under_a_secret
Keys are hashes; who can read
    not promised
A flush waits
    unit/cache/test_fail_open.py::test_a_flush_beside_a_write_under_way_leaves_nothing
An address is never shown
    unit/resilience/test_redis.py::test_no_letter_of_a_password_is_shown
# Checkpoints from strangers
Only regular files are opened
    security/test_hostile_checkpoints.py::test_it_is_refused_in_one_line
`config.json`, indexes
    security/test_hostile_checkpoints.py::test_it_is_refused_in_one_line
A tokenizer may not put in
    security/test_hostile_checkpoints.py::test_an_expression_that_never_ends_is_an_error_of_its_text
Ids and sizes that do not fit
    security/test_hostile_checkpoints.py::test_it_is_refused_in_one_line
What such a checkpoint can do
    not promised
A published ONNX graph
    not promised
Serve a stranger's only
    because
# Changing a checkpoint that is served
Weights are mapped
    because
Replace a file by renaming another
    unit/engine/native/test_engine.py::test_weights_that_are_replaced_by_renaming_stay_those_that_were_loaded
# Settings
A variable of another program
    unit/settings/test_sources.py::test_an_environment_of_others_starts_the_server_with_a_warning_for_each
"""
"""The beginning of each sentence, and below it its test; ``because`` where it says why or what an operator does, and
``not promised`` where it says so."""

LINES = [line for line in LIST.splitlines() if line and not line.startswith("#")]
TESTED = {begin: test.strip() for begin, test in zip(LINES[::2], LINES[1::2], strict=True)}


def sentences() -> list[str]:
    """Those of the promises and decisions; what a report should be like comes before them."""
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    page = page[page.index("\n- ") :]
    found = []
    for block in re.split(r"\n\n|\n(?=- )", page):
        text = re.sub(r"^- |^\*\*[^*]+\*\* ", "", " ".join(block.split()))
        if not text.startswith("#"):
            found += [part for part in re.split(r"(?<=\.)\s+(?=[A-Z`])", text) if part]
    return found


def test_every_sentence_is_in_the_list_once() -> None:
    said = sentences()
    assert len(said) > 40
    assert [text for text in said if sum(text.startswith(begin) for begin in TESTED) != 1] == []
    assert [begin for begin in TESTED if not any(text.startswith(begin) for text in said)] == []


@pytest.mark.parametrize("begin", [begin for begin, test in TESTED.items() if "::" in test])
def test_its_test_is_there(begin: str) -> None:
    file, _, name = TESTED[begin].partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)
