"""rerankd.fingerprint: any changed byte of a checkpoint changes it, and 16 GB are read once."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerankd.errors import ConfigurationError
from rerankd.fingerprint import FileHashes, fingerprint
from rerankd.model_hub import resolve_checkpoint

pytestmark = pytest.mark.promise("S1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resolve_checkpoint("tiny"), tmp_path / "model"))


@pytest.fixture
def remembered(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hashes.json"


def tensors_of(weights: Path) -> Iterator[tuple[str, int]]:
    """Each tensor's name with the place of a byte in its middle."""
    with weights.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    for name, facts in header.items():
        begin, end = facts["data_offsets"]
        yield name, 8 + size + (begin + end) // 2


def flip(file: Path, place: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte[0] ^ 1]))


def age(*files: Path) -> None:
    """Make files old enough to be remembered; the time of their attributes stays that of now."""
    for file in files:
        os.utime(file, (1, 1))


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.thorough)])
def test_a_flipped_bit_in_any_tensor_changes_it(model: Path, remembered: Path, step: int) -> None:
    """Of all the file's tensors; the default run tries each fourth."""
    weights = model / "model.safetensors"
    seen = {fingerprint(model, remembered)}
    places = dict(tensors_of(weights))
    assert len(places) > 40
    for name, place in list(places.items())[::step]:
        flip(weights, place)
        changed = fingerprint(model, remembered)
        assert changed not in seen, name
        seen.add(changed)


@pytest.mark.parametrize("place", [0, -1])
def test_the_first_and_the_last_byte_of_every_file_count(model: Path, remembered: Path, place: int) -> None:
    seen = {fingerprint(model, remembered)}
    files = [file for file in model.iterdir() if file.suffix in (".json", ".safetensors")]
    assert len(files) == 4
    for file in files:
        flip(file, place % file.stat().st_size)
        changed = fingerprint(model, remembered)
        assert changed not in seen, file.name
        seen.add(changed)


def test_a_change_that_keeps_size_and_time_is_seen(model: Path, remembered: Path) -> None:
    weights = model / "model.safetensors"
    age(*model.iterdir())
    before, times = fingerprint(model, remembered), weights.stat()
    flip(weights, weights.stat().st_size - 1)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_mtime_ns == times.st_mtime_ns
    assert fingerprint(model, remembered) != before


def test_a_new_a_missing_and_a_renamed_file_change_it(model: Path, remembered: Path) -> None:
    seen = [fingerprint(model, remembered)]
    (model / "special_tokens_map.json").write_text("{}")
    seen.append(fingerprint(model, remembered))
    (model / "special_tokens_map.json").rename(model / "added_tokens.json")
    seen.append(fingerprint(model, remembered))
    (model / "template.json").unlink()
    seen.append(fingerprint(model, remembered))
    assert len(set(seen)) == 4


def test_the_same_bytes_elsewhere_have_the_same_fingerprint(model: Path, tmp_path: Path, remembered: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    assert fingerprint(copy, remembered) == fingerprint(model, remembered)
    assert fingerprint(copy, tmp_path / "other.json") == fingerprint(model, remembered)


def test_a_settled_file_is_read_once(tmp_path: Path, remembered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 1000)
    monkeypatch.setattr("rerankd.fingerprint._UNSETTLED_SECONDS", 0.0)
    first = FileHashes(remembered).of([file])

    def fail(_: Path) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr("rerankd.fingerprint._hash", fail)
    assert FileHashes(remembered).of([file]) == first


def test_a_file_that_changed_just_now_is_read_again(tmp_path: Path, remembered: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x")
    FileHashes(remembered).of([file])
    assert not remembered.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 5}', "\xff", '{"a": "short"}'])
def test_a_damaged_memory_is_no_memory(tmp_path: Path, remembered: Path, content: str) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x")
    truth = FileHashes(tmp_path / "fresh.json").of([file])
    remembered.parent.mkdir()
    remembered.write_text(content, encoding="latin-1")
    assert FileHashes(remembered).of([file]) == truth


def test_without_a_home_or_a_folder_that_can_be_written_it_still_works(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = fingerprint(model)
    monkeypatch.setattr("rerankd.fingerprint.cache_folder", lambda: None)
    assert fingerprint(model) == truth
    assert fingerprint(model, Path("/proc/nowhere/hashes.json")) == truth


@pytest.mark.timeout(10)
def test_a_fifo_beside_the_weights_is_refused_and_never_waited_for(model: Path, remembered: Path) -> None:
    os.mkfifo(model / "extra.json")
    with pytest.raises(ConfigurationError, match=r"extra\.json is a FIFO"):
        fingerprint(model, remembered)
