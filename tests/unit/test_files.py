"""rerankd.files: other people's files are read whole, bounded, and never waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rerankd.files import UnreadableFile, read_bytes, read_json_object, read_text, require_regular

pytestmark = [pytest.mark.promise("P7"), pytest.mark.timeout(10)]


@pytest.fixture
def odd_files(tmp_path: Path) -> dict[str, Path]:
    """Paths that are no regular files, by what they are."""
    fifo, folder, unix = tmp_path / "fifo", tmp_path / "folder", tmp_path / "socket"
    os.mkfifo(fifo)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(unix))
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    link = tmp_path / "link"
    link.symlink_to(fifo)
    return {
        "FIFO": fifo,
        "link to a FIFO": link,
        "folder": folder,
        "socket": unix,
        "endless device": Path("/dev/zero"),
        "empty device": Path("/dev/null"),
        "missing": tmp_path / "missing",
        "loop of links": loop,
        "NUL byte": Path("a\0b"),
    }


def test_what_is_no_regular_file_is_refused_in_one_line(odd_files: dict[str, Path]) -> None:
    for kind, file in odd_files.items():
        for read in (read_bytes, read_text, read_json_object, require_regular):
            with pytest.raises(UnreadableFile) as caught:
                read(file)  # type: ignore[operator]
            assert "\n" not in caught.value.message, kind


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sparse.json"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(UnreadableFile, match="1099511627776 bytes"):
        read_bytes(file)
    with pytest.raises(UnreadableFile, match="more than the 3"):
        read_bytes(file, limit=3)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a":' * 500_000, "nested too deeply"),
        (b"[1]", "one JSON object"),
        (b"null", "one JSON object"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe{", "not UTF-8"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_json_object_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(UnreadableFile, match=says) as caught:
        read_json_object(file)
    assert len(caught.value.message) < 300 + len(str(file))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json_object(file) == {"a": 1}
