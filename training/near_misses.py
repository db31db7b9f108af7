"""Near misses: a document that answers another question in nearly the same words, made from a training pair.

What both sides of a pair name (an entity, a number, a date, a unit, a version) is replaced in both. The changed
document is then wrong for the query, the document wrong for the changed query, and the two changed ones belong
together; so nothing about a change by itself tells right from wrong. A negation is put into the document alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.alternatives import ALTERNATIVES
from training.prepare import Prepared

# Han digits are left alone: most of them are parts of other words.
NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?![\w.]*\d)")
NAME = re.compile(r"\b[A-Z][\w'-]+(?: (?:of |de |von )?[A-Z][\w'-]+)*")
WORD = re.compile(r"[A-Za-z][A-Za-z_]{3,}")
HAN = re.compile(r"[\u3400-\u9fff]+")
# Words that a question is made of; replacing them would change nothing that was asked for.
COMMON_WORDS = """
what which when where whose whom does have been with from that this these those there their they them than then into
about between many much some other most such your were will would could should also more very name used using called
kind type following according python function return returns code example text list meaning define
"""
COMMON = frozenset(COMMON_WORDS.split())
PARTICLES = "的了是在有和与及或为被把从到于吗呢吧啊什么怎么哪谁几个多少如何这那其它他她们也都就不很最"
VERB = r"\b(is|are|was|were|can|does|do|did|should|will|has|have|may)\b"
# What denies a statement, and what takes a denial away; one that fits is chosen at random.
NEGATIONS = {
    "en": [
        (rf"{VERB}(?! (?:not|never|no)\b)", r"\1 not"),
        (rf"{VERB}(?! (?:not|never|no)\b)", r"\1 never"),
        (r"\b(is|are)\b(?! (?:not|never|no)\b)", r"\1 no longer"),
        (r"\b(is|are|was|were|does|do|did|should|has|have)\b(?! (?:not|never|no)\b)", r"\1n't"),
        (r"\bcan\b(?! not)", "cannot"),
        (r"\b(has|have) (?:a |an )?(?!not|never|no\b|been)", r"\1 no "),
        (rf"{VERB} (?:not|never|no longer)\b", r"\1"),
        (r"\bcannot\b", "can"),
        (r"\bwith\b", "without"),
        (r"\bwithout\b", "with"),
    ],
    "code": [
        (r"\breturn\b(?! not)", "return not"),
        (r"\bif\b(?! not)", "if not"),
        (r"\b(return|if) not\b", r"\1"),
        (r"\bis None\b", "is not None"),
        (r"\bis not None\b", "is None"),
        (r"\b(\w+) in (?=\w+\b:)", r"\1 not in "),
        (r"==", "!="),
        (r"!=", "=="),
        (r"\bTrue\b", "False"),
        (r"\bFalse\b", "True"),
    ],
    "zh": [
        (r"(?<![不没但只还就若])是", "不是"),
        (r"(?<![不没但只还就若])是", "并非"),
        (r"(?<!不)可以", "不可以"),
        (r"(?<!不)可以", "不得"),
        (r"(?<![不可功性])能(?![力量够源])", "不能"),
        (r"(?<![没所只具])有(?![关效限])", "没有"),
        (r"(?<![不社机])会(?![议员计])", "不会"),
        (r"(?<!不)需要", "不需要"),
        (r"(?<!不)支持", "不支持"),
        (r"(?<!不)属于", "不属于"),
        (r"(?<!不)允许", "禁止"),
        (r"不(?=[是能会]|可以|需要|支持|属于|允许)", ""),
        (r"没有", "有"),
    ],
}
# Words: in a longer document one denied sentence takes little from the answer.
NEGATED_LENGTH = 40
DONORS = 12


@dataclass(frozen=True)
class NearMiss:
    """``document`` is wrong for the query it was made of; ``query`` asks for it (None: nothing does)."""

    kind: str
    document: str
    query: str | None


Find = Callable[[str, str, str], list[str]]


def whole(term: str) -> re.Pattern[str]:
    """Matches the term in any case; Latin ones as whole words."""
    escaped = re.escape(term)
    return re.compile(escaped if HAN.search(term) else rf"(?<![\w]){escaped}(?![\w])", re.IGNORECASE)


def replaced(text: str, old: str, new: str) -> str:
    """Keeps a capital letter at the front."""

    def other(match: re.Match[str]) -> str:
        return new[:1].upper() + new[1:] if match.group()[:1].isupper() else new

    return whole(old).sub(other, text)


def holds(text: str, term: str) -> bool:
    return whole(term).search(text) is not None


def shared_numbers(query: str, document: str) -> list[str]:
    return [number for number in NUMBER.findall(query) if holds(document, number)]


def shared_names(query: str, document: str) -> list[str]:
    """Capitalised phrases of the document that the query has too, in whatever case."""
    names = dict.fromkeys(name for name in NAME.findall(document) if name.lower() not in COMMON and len(name) > 3)
    return [name for name in names if holds(query, name)]


def shared_words(query: str, document: str) -> list[str]:
    words = dict.fromkeys(word.lower() for word in WORD.findall(query))
    return [word for word in words if word not in COMMON and holds(document, word)]


def shared_han(query: str, document: str, longest: int = 6) -> list[str]:
    """The longest runs of Han characters in both, without particles at either end."""
    found: list[str] = []
    for run in HAN.findall(query):
        start = 0
        while start < len(run):
            sizes = range(min(longest, len(run) - start), 1, -1)
            size = next((size for size in sizes if run[start : start + size] in document), 0)
            term = run[start : start + size].strip(PARTICLES)
            if len(term) > 1:
                found.append(term)
            start += size or 1
    return list(dict.fromkeys(found))


def other_number(number: str, random: np.random.Generator) -> str:
    """As many digits, and the same dots: a year stays near, the last part of a version changes."""
    head, last = re.match(r"(.*?)(\d+)$", number).groups()  # type: ignore[union-attr]
    if number.isdigit() and len(number) == 4 and number[0] in "12":
        return str(int(number) + int(random.choice([-1, 1])) * int(random.integers(1, 30)))
    low = 10 ** (len(last) - 1) if len(last) > 1 else 0
    value = low + (int(last) - low + int(random.integers(1, 9 * max(low, 1)))) % (9 * max(low, 1) + (low == 0))
    return head + str(value)


def denied(text: str, kind: str, random: np.random.Generator) -> str | None:
    """One statement of the text denied, or one denial taken back."""
    ways = [(pattern, new) for pattern, new in NEGATIONS[kind] if re.search(pattern, text)]
    if not ways:
        return None
    pattern, new = ways[int(random.integers(len(ways)))]
    return re.sub(pattern, new, text, count=1)


class NearMisses:
    """Makes near misses of the pairs of one source; names come from its other pairs."""

    def __init__(self, source: Prepared, kind: str) -> None:
        self.source, self.kind = source, kind
        self.alternatives = ALTERNATIVES[kind]
        if kind == "code":
            self.alternatives = ALTERNATIVES["en"] | self.alternatives

    def make(self, query: int, document: int, random: np.random.Generator) -> NearMiss | None:
        """One change, of a kind chosen at random among those that the pair allows."""
        asked, text = self.source.query_texts[query], self.source.document_texts[document]
        # Numbers and words of one kind are the hardest, and few pairs have them: twice as likely to come first.
        ways = [*[self._number, self._alternative, self._entity] * 2, self._negation]
        for place in random.permutation(len(ways)):
            found = ways[int(place)](asked, text, random)
            if found is not None and found.document != text:
                return found
        return None

    def _both(self, kind: str, query: str, document: str, old: str, new: str) -> NearMiss | None:
        if old.lower() == new.lower() or holds(document, new) or holds(query, new):
            return None
        return NearMiss(kind, replaced(document, old, new), replaced(query, old, new))

    def _number(self, query: str, document: str, random: np.random.Generator) -> NearMiss | None:
        shared = shared_numbers(query, document)
        if not shared:
            return None
        number = str(random.choice(shared))
        return self._both("number", query, document, number, other_number(number, random))

    def _alternative(self, query: str, document: str, random: np.random.Generator) -> NearMiss | None:
        shared = [word for word in self._words_with_alternatives(query) if holds(document, word)]
        if not shared:
            return None
        word = str(random.choice(shared))
        return self._both("alternative", query, document, word, str(random.choice(self.alternatives[word])))

    def _words_with_alternatives(self, query: str) -> list[str]:
        if self.kind == "zh":
            return [word for word in self.alternatives if word in query]
        words = re.findall(r"[a-z]+", query.lower())
        pairs = [f"{first} {second}" for first, second in pairwise(words)]
        return [word for word in dict.fromkeys(words + pairs) if word in self.alternatives]

    def _shared(self, query: str, document: str) -> list[str]:
        if self.kind == "zh":
            return shared_han(query, document)
        return shared_names(query, document) or shared_words(query, document)

    def _entity(self, query: str, document: str, random: np.random.Generator) -> NearMiss | None:
        """What query and document share gives way to what another pair shares, as much alike in form as possible."""
        shared = self._shared(query, document)
        if not shared:
            return None
        # The longest is the most particular.
        term = max(shared, key=len) if random.random() < 0.6 else str(random.choice(shared))
        donors: list[str] = []
        for place in random.integers(len(self.source.queries), size=DONORS):
            answer = int(self.source.positives[int(place)][0])
            donors += self._shared(self.source.query_texts[int(place)], self.source.document_texts[answer][:600])
        donors = [donor for donor in donors if donor[:1].isupper() == term[:1].isupper()]
        if not donors:
            return None
        nearest = min(
            donors, key=lambda donor: (abs(donor.count(" ") - term.count(" ")), abs(len(donor) - len(term)))
        )
        return self._both("entity", query, document, term, nearest)

    def _negation(self, query: str, document: str, random: np.random.Generator) -> NearMiss | None:
        if (len(document) / 2 if self.kind == "zh" else len(document.split())) > NEGATED_LENGTH:
            return None
        changed = denied(document, self.kind, random)
        return None if changed is None else NearMiss("negation", changed, None)
