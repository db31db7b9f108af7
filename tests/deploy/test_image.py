"""What the image would run, run without one: the root that deploy/docker/rehearse.py built, within 512 MB."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.deploy.test_files import DEPLOY
from tests.figures import Measured
from tests.live import free_port

ROOTS = Path(os.environ.get("REHEARSAL", "/var/tmp/rehearsal"))
GROUP = Path("/sys/fs/cgroup/memory/rerankd-rehearsal")
GROUP_2 = Path("/sys/fs/cgroup/rerankd-rehearsal")
LIMIT_MB = 512

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chroot, mount and control groups"),
    pytest.mark.skipif(
        not (ROOTS / "cpu" / ".rehearsed").exists(),
        reason=f"needs deploy/docker/rehearse.py --target cpu --work {ROOTS} build",
    ),
]


def rehearsed(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The image's command, or another, as its container would run it."""
    command = [sys.executable, str(DEPLOY / "docker" / "rehearse.py"), "--work", str(ROOTS)]
    command += ["--memory", f"{LIMIT_MB}M", "run", "--", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})}
    )


def most_used_mb() -> int:
    file = next(one for one in (GROUP / "memory.max_usage_in_bytes", GROUP_2 / "memory.peak") if one.exists())
    return int(file.read_text()) >> 20


@pytest.fixture
def limit() -> None:
    process = rehearsed("true")
    said, _ = process.communicate(timeout=60)
    if "no memory limit" in said:
        pytest.skip("control groups cannot be set here")
    assert process.returncode == 0, said
    file = GROUP / "memory.max_usage_in_bytes"
    if file.exists():
        file.write_text("0")


@pytest.mark.promise("image")
def test_the_limit_has_force(limit: None, measured: Measured) -> None:
    process = rehearsed("python", "-c", f"memory = bytearray({LIMIT_MB + 200} << 20); print('there')")
    said, _ = process.communicate(timeout=60)
    outcome = "killed" if process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL) else f"lives: {said}"
    measured("image", f"{LIMIT_MB + 200} MB in the rebuilt root", "killed", outcome)
    assert outcome == "killed"


@pytest.mark.promise("image")
def test_the_image_answers_as_nobody_on_a_read_only_root_within_its_limit(limit: None, measured: Measured) -> None:
    port = free_port()
    server = rehearsed(env={"RERANKD_PORT": str(port), "RERANKD_HOST": "127.0.0.1"})
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            assert server.poll() is None, server.communicate()[0]
            try:
                if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the server is not ready"
            time.sleep(0.1)
        documents = [f"Sentence {number} is about the capital of France. " * 20 for number in range(500)]
        answer = httpx.post(
            f"{url}/rerank", json={"query": "capital of France?", "documents": documents}, timeout=120
        )
        status = Path(f"/proc/{server.pid}/status").read_text()
        uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
        write = rehearsed("python", "-c", "open('/opt/rerankd/written', 'w')")
        refused, _ = write.communicate(timeout=60)
        used = most_used_mb()
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert uid is not None
    measured(
        "image",
        "the rebuilt root: user, root, memory, 500 documents",
        f"65534, read-only, <= {LIMIT_MB} MB, 200",
        f"{uid[1]}, {'read-only' if 'Read-only' in refused else refused}, {used} MB, {answer.status_code}",
    )
    assert uid[1] == "65534"
    assert "Read-only file system" in refused
    assert answer.status_code == 200
    assert used <= LIMIT_MB
