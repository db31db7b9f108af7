"""Runs the steps of a Dockerfile's target without Docker: in fresh root file systems made by debootstrap.

    sudo python deploy/docker/rehearse.py --target cpu --work /var/tmp/rehearsal build
    sudo python deploy/docker/rehearse.py --target cpu --work /var/tmp/rehearsal size
    sudo python deploy/docker/rehearse.py --target cpu --work /var/tmp/rehearsal run --memory 512M

Where no image can be built, this shows that its steps work and that what they make answers: as the image's user, on a
read-only root with a fresh /tmp, within a memory limit where control groups can be set. It knows the instructions of
our Dockerfile (FROM, RUN, COPY, ARG, ENV, USER, WORKDIR, EXPOSE, HEALTHCHECK, ENTRYPOINT, CMD) and refuses others.

The image's `debian:RELEASE-slim` is debootstrap's minimal variant of the same release, from the mirror of --mirror. A
machine that reaches its package index in its own way hands that in: --env NAME copies a variable of this process into
the build steps, --bind PATH shows a file or folder of this machine to them. Neither is there when the result runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = Path(__file__).parent / "Dockerfile"
_SHELL = ["/bin/sh", "-c"]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Stage:
    """One FROM and the instructions up to the next."""

    name: str
    parent: str
    steps: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Image:
    """What a container of a stage is started with."""

    env: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    user: str = "0:0"
    directory: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def read_stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name.

    Raises:
        ValueError: an instruction that this program does not know.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, rest = line.strip().split(maxsplit=1)
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            current = stages[name] = Stage(name, parent)
        elif current is None or word not in {*_CONFIGURE, "RUN", "COPY"}:
            raise ValueError(f"cannot rehearse {word}")
        else:
            current.steps.append((word, rest))
    return stages


def _set_env(image: Image, rest: str) -> None:
    for pair in shlex.split(rest):
        name, _, value = pair.partition("=")
        for known, there in image.env.items():
            value = value.replace(f"${known}", there)
        image.env[name] = value


def _set_health(image: Image, rest: str) -> None:
    image.health = json.loads(rest[rest.index("CMD") + 3 :])


_CONFIGURE = {
    "ENV": _set_env,
    # Its default; the stages that have one are not those that run.
    "ARG": _set_env,
    "USER": lambda image, rest: setattr(image, "user", rest),
    "WORKDIR": lambda image, rest: setattr(image, "directory", rest),
    "ENTRYPOINT": lambda image, rest: setattr(image, "entrypoint", json.loads(rest)),
    "CMD": lambda image, rest: setattr(image, "command", json.loads(rest)),
    "HEALTHCHECK": _set_health,
    "EXPOSE": lambda image, rest: None,
}


class Rehearsal:
    """The roots of all stages below one folder."""

    def __init__(self, work: Path, mirror: str, binds: Sequence[Path], env: Sequence[str]) -> None:
        self._work = work
        self._mirror = mirror
        self._binds = binds
        self._env = {name: os.environ[name] for name in env if name in os.environ}
        self._stages = read_stages(DOCKERFILE.read_text(encoding="utf-8"))

    def root(self, stage: str) -> Path:
        return self._work / stage.replace(":", "-")

    def build(self, name: str) -> None:
        """Make the root of a stage, after those that it stands on; one that is there already stays."""
        if (self.root(name) / ".rehearsed").exists():
            return
        shutil.rmtree(self.root(name), ignore_errors=True)
        if name not in self._stages:
            self._bootstrap(name)
        else:
            self._run_steps(self._stages[name])
        (self.root(name) / ".rehearsed").touch()

    def image(self, name: str) -> Image:
        """What a container of the stage starts with, its ancestors' settings included."""
        if name not in self._stages:
            return Image()
        stage, image = self._stages[name], self.image(self._stages[name].parent)
        for word, rest in stage.steps:
            if word in _CONFIGURE:
                _CONFIGURE[word](image, rest)
        return image

    def _bootstrap(self, name: str) -> None:
        distribution, _, tag = name.partition(":")
        if distribution != "debian":
            raise ValueError(f"cannot rehearse an image on {name}")
        release = tag.removesuffix("-slim")
        print(f"debootstrap {release}", flush=True)
        words = ["debootstrap", "--variant=minbase", release, str(self.root(name)), self._mirror]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def _run_steps(self, stage: Stage) -> None:
        self.build(stage.parent)
        root, image = self.root(stage.name), self.image(stage.parent)
        subprocess.run(["cp", "--archive", "--reflink=auto", self.root(stage.parent), root], check=True)
        (root / ".rehearsed").unlink()
        for word, rest in stage.steps:
            print(f"{stage.name}: {word} {rest}"[:160], flush=True)
            if word == "RUN":
                self._run(root, image, rest)
            elif word == "COPY":
                self._copy(root, shlex.split(rest))
            else:
                _CONFIGURE[word](image, rest)

    def _run(self, root: Path, image: Image, command: str) -> None:
        with mounted(root, self._binds):
            words = ["chroot", f"--userspec={image.user}", str(root), *_SHELL, command]
            done = subprocess.run(words, env={**self._env, **image.env}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}exit status {done.returncode}")

    def _copy(self, root: Path, words: list[str]) -> None:
        stage = next((word.partition("=")[2] for word in words if word.startswith("--from=")), "")
        source, target = [word for word in words if not word.startswith("--")]
        to = root / target.lstrip("/")
        if stage:
            self.build(stage)
            to.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "--archive", self.root(stage) / source.lstrip("/"), to], check=True)
            return
        for file in context_files():
            (to / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, to / file)


def context_files() -> Iterator[Path]:
    """The files of the build context, by .dockerignore: of the patterns that match, the last one counts."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and line[0] != "#"]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        ignored = False
        for pattern in patterns:
            plain = pattern.lstrip("!")
            parts = [name, *map(str, Path(name).parents)]
            if any(fnmatch.fnmatch(part, plain.replace("**/", "*")) for part in parts):
                ignored = pattern[0] != "!"
        if not ignored and (ROOT / name).is_file():
            yield Path(name)


@contextlib.contextmanager
def mounted(root: Path, binds: Sequence[Path]) -> Iterator[None]:
    """Show /proc, /dev/null and its like, name servers, and what --bind names to commands inside of a root."""
    shown = [Path("/dev/null"), Path("/dev/urandom"), Path("/etc/resolv.conf"), *binds]
    made: list[Path] = []
    with contextlib.ExitStack() as stack:
        for path in shown:
            inside = root / str(path).lstrip("/")
            if not inside.exists():
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.mkdir() if path.is_dir() else inside.touch()
                made.append(inside)
            _mount(stack, "--bind", path, inside)
        _mount(stack, "--types=proc", Path("proc"), root / "proc")
        yield
    for inside in made:
        inside.rmdir() if inside.is_dir() else inside.unlink()


def _mount(stack: contextlib.ExitStack, how: str, source: Path, target: Path) -> None:
    subprocess.run(["mount", how, str(source), str(target)], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", str(target)], check=False)


def container_words(root: Path, image: Image, words: Sequence[str], memory: str) -> list[str]:
    """The command that runs words as a container of the image would: read-only root, fresh /tmp, the image's user."""
    inside = " && ".join(
        [
            f"mount --bind {root} {root}",
            f"mount --options remount,bind,ro {root}",
            f"mount --types tmpfs -o size=64m,mode=1777 tmpfs {root}/tmp",
            f"mount --types proc proc {root}/proc",
            f"mount --bind /dev/null {root}/dev/null",
            f"mount --bind /dev/urandom {root}/dev/urandom",
            f"exec chroot --userspec={image.user} {root} {shlex.join(words)}",
        ]
    )
    limited = limit_words(memory) if memory else []
    return [*limited, "unshare", "--mount", "--propagation", "private", *_SHELL, inside]


def limit_words(memory: str) -> list[str]:
    """A prefix that puts a command into a control group with so much memory; empty where groups cannot be made."""
    for base, name in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = base / "rerankd-rehearsal"
        try:
            group.mkdir(exist_ok=True)
            (group / name).write_text(memory)
        except OSError:
            continue
        return [*_SHELL, f'echo $$ > {group}/cgroup.procs && exec "$@"', "limit"]
    print("control groups cannot be set here: no memory limit", file=sys.stderr)
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder for the roots; a gigabyte")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--bind", type=Path, action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--memory", default="", help="limit of `run`, such as 512M")
    parser.add_argument("action", choices=["build", "size", "run"])
    parser.add_argument("words", nargs="*", help="of `run`: another command than the image's")
    chosen = parser.parse_args()
    rehearsal = Rehearsal(chosen.work.resolve(), chosen.mirror, chosen.bind, chosen.env)
    root, image = rehearsal.root(chosen.target), rehearsal.image(chosen.target)
    if chosen.action == "build":
        rehearsal.build(chosen.target)
    elif chosen.action == "size":
        subprocess.run(["du", "--summarize", "--block-size=MB", "--one-file-system", root], check=True)
    else:
        words = chosen.words or [*image.entrypoint, *image.command]
        env = {**image.env, **{name: value for name, value in os.environ.items() if name.startswith("RERANKD_")}}
        command = container_words(root, image, words, chosen.memory)
        os.execve(shutil.which(command[0]) or command[0], command, env)


if __name__ == "__main__":
    main()
