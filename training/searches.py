"""Pseudo-queries of the kinds that search engines are asked, made from questions, documents and functions.

Most training queries are whole questions, headings or docstrings. People type keywords, ask what something is, name
two things at once or one thing by what is said of it, and name the language where they look for code. Only the
teachers know which other documents answer such a query too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import numpy as np

from training.data import Source, held_out, kind_of, normalised

SEARCHES = ".searches"
QUERIES_A_SOURCE, LEAST = 6_000, 200
LATIN_WORD = re.compile(r"[A-Za-z0-9][\w.+#'-]*")
# What a question is made of and keywords lack; of the second list each word stays sometimes.
QUESTION_WORDS = """
a an the is are was were be been am do does did has have had will would shall should can could may might there it its
this that these those which what write function
"""
MINOR_WORDS = """
how why when where who whom whose of in on at to for from by with as and or into about between during my your their
his her our given using
"""
ALWAYS_DROPPED, SOMETIMES_DROPPED = frozenset(QUESTION_WORDS.split()), frozenset(MINOR_WORDS.split())
# What a Chinese question is asked with; what stands between are its keywords.
ASKED_WITH = re.compile(
    r"[？?，,。！、!：:；;]|是?(?:什么时候|什么样|什么|为什么|怎么样|怎么办|怎么|如何|哪些|哪个|哪里|哪一|哪年|哪|多少|几个|谁)|"
    r"是否|有没有|请问|吗|呢|的|了|是|在|被|把|和|与"
)
CHINESE_KEYWORDS = range(4, 40)
# "SUBJECT (1900-1980) was a ..."
DEFINED = re.compile(
    r"^(?:The |An? )?(?P<subject>[A-Z0-9][^.,;:()]{2,59}?) ?(?P<aside>\([^)]*\))?,? (?P<verb>is|are|was|were) "
    r"(?:an?|the|one of the) (?P<said>[^.;()]{8,160})"
)
# Words that only point at what was said before, or speak to somebody, are no subject.
DEFINED_IN_CHINESE = re.compile(
    r"^(?![这那它其该本此由如因还首])(?P<subject>[^\s，。,；;：:（(你您我他她们]{2,12})(?:（[^）]*）)?，?"
    r"是(?:一[种个位类项部款]|指)?(?P<said>[^。；;]{6,60})"
)
ASKS_WHAT = {
    "en": ("what {verb} {subject}", "{subject} definition", "define {subject}", "{subject} meaning", "{subject}"),
    "who": ("who {verb} {subject}", "{subject}", "{subject} biography"),
    "zh": ("什么是{subject}", "{subject}是什么", "{subject}是什么意思", "{subject}的定义", "{subject}"),
}
BOTH = ("are {first} and {second} both {said}", "{first} and {second}", "which one is {said}, {first} or {second}")
LONGEST_SUBJECT = 5
# Characters: what is said in fewer is true of many.
SAID = {"en": 40, "zh": 12}
ASKS_FOR_CODE = (
    "python {words}", "{words} in python", "how to {words} in python", "{words} python", "python how to {words}",
    "python code to {words}", "{words}",
)  # fmt: skip
NAME_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def pick(random: np.random.Generator, forms: tuple[str, ...]) -> str:
    return forms[int(random.integers(len(forms)))]


def keywords(question: str, chinese: bool, random: np.random.Generator) -> str | None:
    """The question without what makes it one, or nothing where that is too little or all of it."""
    if chinese:
        parts = [part.strip() for part in ASKED_WITH.split(question)]
        found = " ".join(part for part in parts if part)
        return found if len(found) in CHINESE_KEYWORDS and found != question else None
    words = LATIN_WORD.findall(question)
    kept = [word for word in words if word.lower() not in ALWAYS_DROPPED]
    kept = [word for word in kept if word.lower() not in SOMETIMES_DROPPED or random.random() < 0.4]
    return " ".join(kept).lower() if 2 <= len(kept) < len(words) else None


def names_something(subject: str) -> bool:
    """Whether it is more than a word that points at what was said before."""
    return subject.split()[0].lower() not in ALWAYS_DROPPED | SOMETIMES_DROPPED


class Definitions:
    """Documents that begin by saying what something is."""

    def __init__(self, source: Source) -> None:
        chinese = source.language.startswith("zh")
        pattern = DEFINED_IN_CHINESE if chinese else DEFINED
        matches = {place: pattern.match(text) for place, text in enumerate(source.documents)}
        self.source, self.kind = source, "zh" if chinese else "en"
        self.found = {
            place: match
            for place, match in matches.items()
            if match is not None and names_something(match["subject"])
        }
        self.by_subject = {match["subject"]: place for place, match in self.found.items()}

    def what(self, place: int, random: np.random.Generator) -> str:
        match = self.found[place]
        person = self.kind == "en" and re.search(r"\d{4}", match["aside"] or "") is not None
        return pick(random, ASKS_WHAT["who" if person else self.kind]).format(**match.groupdict())

    def said(self, place: int, random: np.random.Generator) -> str:
        """What is said of the subject asks for it."""
        said = self.found[place]["said"]
        return f"which {said}" if self.kind == "en" and random.random() < 0.5 else str(said)

    def both(self, first: int, second: int, random: np.random.Generator) -> str:
        subjects = (self.found[first]["subject"], self.found[second]["subject"])
        said = self.found[first]["said"].split(",")[0]
        return pick(random, BOTH).format(first=subjects[0], second=subjects[1], said=said)

    def bridged(self, place: int) -> tuple[str, int] | None:
        """A sentence that names another document's subject, with what is said of it in its place."""
        for sentence in re.split(r"(?<=[.!?])\s+", self.source.documents[place])[:6]:
            words = list(re.finditer(r"[^\s,.;()]+", sentence))
            for start in range(len(words)):
                for end in range(min(start + LONGEST_SUBJECT, len(words)), start + 1, -1):
                    span = slice(words[start].start(), words[end - 1].end())
                    other = self.by_subject.get(sentence[span], place)
                    if other != place and len(words) <= 40:
                        said = self.found[other]["said"].split(",")[0]
                        return f"{sentence[: span.start]}the {said}{sentence[span.stop :]}", other
        return None


def asking(words: str, kind: str, random: np.random.Generator) -> str:
    if kind != "code":
        return words
    bare = re.sub(r"^to | ?(?:\b(?:in|with) )?\bpython\b", "", words).strip(" .")
    return pick(random, ASKS_FOR_CODE).format(words=bare)


def function_words(code: str) -> str | None:
    """The words of a function's name."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return None
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    words = [part.lower() for part in NAME_PARTS.findall(names[0])] if names else []
    return " ".join(words) if len(words) > 1 else None


def searches(source: Source, random: np.random.Generator) -> Iterator[tuple[str, list[int]]]:
    """Queries and the documents that they are made of. None is made of a query that is held out."""
    kind = kind_of(source)
    for place, question in enumerate(source.queries):
        words = keywords(question, kind == "zh", random)
        if words is not None and not held_out(place):
            yield asking(words, kind, random), source.positives[place]
    if kind == "code":
        for place, code in enumerate(source.documents):
            words = function_words(code)
            if words is not None:
                yield asking(words, kind, random), [place]
        return
    definitions = Definitions(source)
    places = list(definitions.found)
    for place in places:
        yield definitions.what(place, random), [place]
        if len(definitions.found[place]["said"]) >= SAID[kind]:
            yield definitions.said(place, random), [place]
        if kind == "en":
            other = places[int(random.integers(len(places)))]
            if other != place:
                yield definitions.both(place, other, random), [place, other]
            bridged = definitions.bridged(place)
            if bridged is not None:
                yield bridged[0], [place, bridged[1]]


def search_source(source: Source, seed: int, evaluated: set[str]) -> Source:
    """A source of its own over the same documents. No query is one of ``evaluated`` (normalised)."""
    random = np.random.default_rng(seed)
    made = Source(source.name + SEARCHES, source.language, documents=source.documents)
    positives = {query: own for query, own in searches(source, random) if normalised(query) not in evaluated}
    queries = list(positives)
    for place in random.permutation(len(queries))[:QUERIES_A_SOURCE]:
        made.queries.append(queries[int(place)])
        made.positives.append(positives[queries[int(place)]])
        made.negatives.append([])
    return made


def search_sources(sources: list[Source], seed: int, evaluated: set[str]) -> list[Source]:
    made = [search_source(source, seed, evaluated) for source in sources]
    return [source for source in made if len(source.queries) >= LEAST]
