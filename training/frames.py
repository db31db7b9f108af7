"""Fills the frames of ``statements/*.txt``: contrast sets of short statements and the questions they answer.

A line is ``question | question || statement | statement``. ``{january}`` is any word of the kind that January belongs
to in `training.alternatives`, ``{january2}`` another one; ``{name}``, ``{year}``, ``{number}``, ``{version}`` and
``{identifier}`` are drawn from the data or at random. ``[is|is not]`` is one switch a frame: the first part
everywhere or the second part everywhere. A question without the switch is answered by the first. A set is made by
changing one place that the question names, or by turning the switch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.alternatives import ALTERNATIVES
from training.data import held_out
from training.near_misses import other_number, shared_han, shared_names
from training.prepare import Prepared

SWITCH = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*)\]")
SLOT = re.compile(r"\{(\w+)\}")
NAMES_A_SOURCE, LONGEST_NAME = 400, 30
# How often a changed place draws anew what the question did not ask for (another capital has another name), the
# second document has another form, the switch changes, a text begins in lower case, a number changes to any other.
REDRAWN, OTHER_FORM, SWITCHED, LOWER_CASE, ANY_NUMBER = 0.5, 0.3, 0.7, 0.3, 0.3
# How often a set is made of a frame with a switch, and another sentence stands before or behind a statement.
DENIALS, IN_CONTEXT = 0.45, 0.3
# Every so many of the longer frames are kept for the fit of scale and bias.
HELD_OUT_EVERY = 7
TRIES = 20
SHARES = {"en": 0.4, "zh": 0.35, "code": 0.25}
PLACEHOLDERS = ["Alpha", "Beta", "Gamma"]
# Words of the lists that end in a digit themselves.
WITH_DIGITS = ("type_1", "base64", "s3", "int32")


@dataclass(frozen=True)
class Contrast:
    """``documents[0]`` answers ``queries[0]`` and not ``queries[1]``; ``documents[1]`` the other way round.

    There may be one query only: nothing asks for the second document.
    """

    queries: tuple[str, ...]
    documents: tuple[str, str]


@dataclass(frozen=True)
class Frame:
    """Forms of one question and of one statement, with places to fill."""

    questions: tuple[str, ...]
    statements: tuple[str, ...]

    @property
    def is_switched(self) -> bool:
        return any(SWITCH.search(statement) for statement in self.statements)


def read_frames(path: Path) -> list[Frame]:
    """``\\n`` in a statement is the end of a line, as code needs it."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        questions, statements = line.split(" || ")
        forms = [form.replace("\\n", "\n") for form in statements.split(" | ")]
        found.append(Frame(tuple(questions.split(" | ")), tuple(forms)))
    return found


FOLDER = Path(__file__).with_name("statements")
LONG_FRAMES = {kind: read_frames(FOLDER / f"{kind}_long.txt") for kind in SHARES}
# Frames that are trained on, and those that scale and bias are fitted with.
FRAMES = {
    kind: read_frames(FOLDER / f"{kind}.txt") + [f for n, f in enumerate(LONG_FRAMES[kind]) if n % HELD_OUT_EVERY]
    for kind in SHARES
}
HELD_OUT_FRAMES = {kind: LONG_FRAMES[kind][::HELD_OUT_EVERY] for kind in SHARES}
# Sentences that say nothing a question asks for; code has none.
CONTEXT = {kind: (FOLDER / f"{kind}_context.txt").read_text(encoding="utf-8").splitlines() for kind in ("en", "zh")}
WORDS = ALTERNATIVES | {"code": ALTERNATIVES["en"] | ALTERNATIVES["code"]}


def switched(text: str, second: bool) -> str:
    return SWITCH.sub(lambda match: match[2] if second else match[1], text)


def is_identifier(name: str) -> bool:
    return re.fullmatch(r"[a-z]+(_[a-z]+)+", name) is not None


def names_of(sources: Sequence[Prepared], kinds: Sequence[str]) -> dict[str, list[str]]:
    """What queries and their documents both name, by kind of source, and ``identifier``: names in code."""
    found: dict[str, dict[str, None]] = {"en": {}, "zh": {}, "code": {}, "identifier": {}}
    for source, kind in zip(sources, kinds, strict=True):
        shared = shared_han if kind == "zh" else shared_names
        for query in [q for q in range(len(source.queries)) if not held_out(q)][:NAMES_A_SOURCE]:
            text = source.document_texts[int(source.positives[query][0])][:600]
            names = shared(source.query_texts[query], text)
            found["zh" if kind == "zh" else "en"] |= dict.fromkeys(n for n in names if len(n) <= LONGEST_NAME)
            if kind == "code":
                found["identifier"] |= dict.fromkeys(filter(is_identifier, re.findall(r"\w+", text)))
    found["code"] = found["en"]
    return {kind: list(names) for kind, names in found.items()}


class Statements:
    """Fills frames. ``names``: by kind, and of ``identifier``."""

    def __init__(self, names: dict[str, list[str]], frames: dict[str, list[Frame]] = FRAMES) -> None:
        self.names = {kind: found or PLACEHOLDERS for kind, found in names.items()}
        self.frames = {
            (kind, denials): [frame for frame in frames[kind] if frame.is_switched == denials]
            for kind in frames
            for denials in (False, True)
        }

    def make(self, random: np.random.Generator, denials: float = DENIALS) -> Contrast:
        kind = str(random.choice(list(SHARES), p=list(SHARES.values())))
        found = None
        while found is None:
            frames = self.frames[kind, bool(random.random() < denials)]
            found = self.fill(kind, frames[int(random.integers(len(frames)))], random)
        return found

    def fill(self, kind: str, frame: Frame, random: np.random.Generator) -> Contrast | None:
        """One set of this frame; None where the question and statement drawn have nothing to change."""
        question, statement = str(random.choice(frame.questions)), str(random.choice(frame.statements))
        other = str(random.choice(frame.statements)) if random.random() < OTHER_FORM else statement
        statement, other = self._in_context(kind, statement, random), self._in_context(kind, other, random)
        stated = set(SLOT.findall(statement)) & set(SLOT.findall(other))
        asked = sorted(set(SLOT.findall(question)) & stated)
        polar = bool(SWITCH.search(statement))
        if not polar and not asked:
            return None
        values = self._values(kind, {*SLOT.findall(question), *SLOT.findall(statement), *SLOT.findall(other)}, random)
        # A question without a switch is answered by the first position.
        second = bool(SWITCH.search(question)) and bool(random.random() < 0.5)
        if polar and (not asked or random.random() < SWITCHED):
            return self._polar(kind, question, statement, other, values, second, random)
        changed = dict(values)
        place = asked[int(random.integers(len(asked)))]
        changed[place] = self._another(kind, place, values, random)
        if changed[place] in values.values():
            return None
        if random.random() < REDRAWN:
            for slot in values.keys() - set(asked):
                changed[slot] = self._another(kind, slot, changed, random)
        texts = [
            self._text(text, filled, kind, second, random)
            for text, filled in ((question, values), (question, changed), (statement, values), (other, changed))
        ]
        return Contrast((texts[0], texts[1]), (texts[2], texts[3])) if len(set(texts)) == 4 else None

    def _in_context(self, kind: str, statement: str, random: np.random.Generator) -> str:
        """The statement, sometimes with a sentence before or behind it."""
        if kind not in CONTEXT or random.random() >= IN_CONTEXT:
            return statement
        sentence = str(random.choice(CONTEXT[kind]))
        parts = [statement, sentence] if random.random() < 0.5 else [sentence, statement]
        return (" " if kind == "en" else "").join(parts)

    def _polar(
        self, kind: str, question: str, statement: str, other: str, values: dict[str, str], second: bool,
        random: np.random.Generator,
    ) -> Contrast | None:  # fmt: skip
        """The switch is what differs; a question without one is answered by the first position."""
        documents = [
            self._text(statement, values, kind, False, random),
            self._text(other, values, kind, True, random),
        ]
        if not SWITCH.search(question):
            return Contrast((self._text(question, values, kind, False, random),), (documents[0], documents[1]))
        queries = [self._text(question, values, kind, side, random) for side in (False, True)]
        if second:
            queries, documents = queries[::-1], documents[::-1]
        return Contrast((queries[0], queries[1]), (documents[0], documents[1]))

    def _text(self, text: str, values: dict[str, str], kind: str, second: bool, random: np.random.Generator) -> str:
        filled = SLOT.sub(lambda match: values[match[1]], switched(text, second))
        if kind == "en" and random.random() > LOWER_CASE:
            filled = filled[:1].upper() + filled[1:]
        return filled

    def _values(self, kind: str, slots: set[str], random: np.random.Generator) -> dict[str, str]:
        """All different from each other."""
        found: dict[str, str] = {}
        for slot in sorted(slots):
            found[slot] = self._another(kind, slot, found, random)
        return found

    def _another(self, kind: str, slot: str, taken: dict[str, str], random: np.random.Generator) -> str:
        """A value of the slot that no other one has; near the old one where it is a number."""
        old = taken.get(slot)
        for _ in range(TRIES):
            value = self._near(slot, old, random) or self._fresh(kind, slot, random)
            if value not in taken.values():
                return value
        raise ValueError(f"no other value for {{{slot}}} in the statements of kind {kind}")

    def _near(self, slot: str, old: str | None, random: np.random.Generator) -> str | None:
        if old is None or slot.rstrip("2") not in ("number", "year", "version") or random.random() < ANY_NUMBER:
            return None
        return other_number(old, random)

    def _fresh(self, kind: str, slot: str, random: np.random.Generator) -> str:
        name = slot if slot in WITH_DIGITS else slot.rstrip("2")
        if name == "year":
            return str(int(random.integers(1850, 2031)))
        if name == "number":
            return str(int(10 ** random.uniform(0, 4)))
        if name == "version":
            parts = random.integers([1, 0, 0], [20, 20, 10])[: int(random.integers(1, 4))]
            return ".".join(map(str, parts))
        if name in ("name", "identifier"):
            return str(random.choice(self.names[kind if name == "name" else name]))
        word = name.replace("_", " ")
        return str(random.choice([word, *WORDS[kind][word]]))
