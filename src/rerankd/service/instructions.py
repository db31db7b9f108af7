"""Instructions by name: ``@code_search`` stands for a sentence, ``@code_search language=Go`` for one with a variable.

Some come with the server; a folder of files ``NAME.toml`` adds others or takes their places, and is read again when
it changes. Each file holds ``text``, and if it likes ``use`` and ``variables``, as a table of ``instructions.toml``.
"""

from __future__ import annotations

import re
import shlex
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from rerankd.errors import ConfigurationError, InvalidRequest
from rerankd.files import read_text
from rerankd.settings.values import nearest

MAX_FILES = 256
"""Files of one folder; those behind them, in the order of their names, are left out."""
_MAX_BYTES = 64 * 1024
_SECONDS_BETWEEN_LOOKS = 1.0
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_CALL = re.compile(rf"@({_NAME.pattern})(?:\s+(.*))?", re.DOTALL)
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_BUILT_IN = Path(__file__).with_name("instructions.toml")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Preset:
    """An instruction with a name."""

    name: str
    text: str
    """``{name}`` stands for a variable."""
    use: str = ""
    """When to use it, for a person."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The variables of the text with what they are where nobody says."""
    is_built_in: bool = False

    def filled(self, given: Mapping[str, str]) -> str:
        """The instruction with its variables.

        Raises:
            InvalidRequest: it has no such variable.
        """
        unknown = given.keys() - self.variables.keys()
        if unknown:
            has = f"it has {', '.join(sorted(self.variables))}" if self.variables else "it has none"
            raise InvalidRequest(f"the instruction @{self.name} has no such variable; {has}", param="instruction")
        values = {**self.variables, **given}
        return " ".join(_VARIABLE.sub(lambda match: values[match[1]], self.text).split())


class Instructions:
    """The presets in force.

    Args:
        folder: of files ``NAME.toml``; None for none.

    Raises:
        ConfigurationError: a file cannot be read, or is no preset.
    """

    def __init__(self, folder: Path | None = None) -> None:
        rows = tomllib.loads(read_text(_BUILT_IN, _MAX_BYTES))
        self._built_in = {name: _preset(name, row, str(_BUILT_IN), is_built_in=True) for name, row in rows.items()}
        self._folder = folder
        self._own: dict[str, Preset] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._look_after = 0.0
        if folder is not None:
            if not folder.is_dir():
                raise ConfigurationError(f"the setting 'instructions_folder' names no folder: {folder}")
            self._read(folder, is_start=True)

    @classmethod
    def of(cls, setting: str | Path) -> Instructions:
        """By the setting ``instructions_folder``; empty for the built-in ones alone."""
        return cls(Path(setting) if setting else None)

    @property
    def presets(self) -> Mapping[str, Preset]:
        """All of them by name."""
        self._look()
        return {**self._built_in, **self._own}

    def resolve(self, instruction: str) -> str:
        """The sentence that an instruction stands for: itself, unless it begins with ``@`` and a name.

        Raises:
            InvalidRequest: there is no such preset, or it has no such variable.
        """
        call = _CALL.fullmatch(instruction.strip()) if instruction.lstrip().startswith("@") else None
        if call is None:
            return instruction
        presets = self.presets
        preset = presets.get(call[1])
        if preset is None:
            hint = nearest(call[1], presets) or f"; there is {', '.join(sorted(presets))}"
            raise InvalidRequest(f"there is no instruction of that name{hint}", param="instruction")
        return preset.filled(_variables(call[2] or ""))

    def _look(self) -> None:
        """Read what has changed; what cannot be read stays as it was."""
        now = time.monotonic()
        if self._folder is None or now < self._look_after:
            return
        self._look_after = now + _SECONDS_BETWEEN_LOOKS
        try:
            self._read(self._folder, is_start=False)
        except OSError as error:
            _log.error("the folder of instructions is unreadable, those read last stay", error=type(error).__name__)

    def _read(self, folder: Path, *, is_start: bool) -> None:
        stamps = {}
        for file in sorted(folder.glob("*.toml"))[:MAX_FILES]:
            status = file.stat()
            stamps[file] = (status.st_mtime_ns, status.st_size)
        for file in self._stamps.keys() - stamps.keys():
            self._own.pop(file.stem, None)
        for file, stamp in stamps.items():
            if self._stamps.get(file) == stamp:
                continue
            try:
                self._own[file.stem] = _preset(file.stem, _table(file), str(file))
            except ConfigurationError as error:
                if is_start:
                    raise
                _log.error("an instruction cannot be read, it stays as it was", reason=error.message)
        self._stamps = stamps


def _table(file: Path) -> Any:
    try:
        return tomllib.loads(read_text(file, _MAX_BYTES))
    except (ValueError, RecursionError):
        raise ConfigurationError(f"the instruction {file} is no TOML") from None


def _preset(name: str, row: Any, place: str, *, is_built_in: bool = False) -> Preset:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{place}: {name[:80]!r} cannot be the name of an instruction")
    text, use, variables = (row.get(key, default) for key, default in (("text", ""), ("use", ""), ("variables", {})))
    if not isinstance(text, str) or not text.strip() or not isinstance(use, str):
        raise ConfigurationError(f"{place}: the instruction {name} needs a text")
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise ConfigurationError(f"{place}: variables of the instruction {name} have to be texts by name")
    missing = set(_VARIABLE.findall(text)) - variables.keys()
    if missing:
        raise ConfigurationError(f"{place}: the instruction {name} has no default for {{{min(missing)}}}")
    return Preset(name, text, use, variables, is_built_in)


def _variables(words: str) -> dict[str, str]:
    """``language=Python shop="My shop"`` by name."""
    try:
        parts = shlex.split(words)
    except ValueError:
        parts = [""]
    pairs = [part.partition("=") for part in parts]
    if not all(name and mark for name, mark, _ in pairs):
        raise InvalidRequest("behind the name of an instruction stand variables, name=value", param="instruction")
    return {name: value for name, _, value in pairs}
