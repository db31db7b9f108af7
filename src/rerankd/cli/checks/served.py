"""Whether the model behind a running server is served right, asked from outside.

Nothing is compared with another model: every check holds for any pointwise reranker. A relevant passage beats an
irrelevant one; a score is a probability; a pair has one score, whoever is asked beside it; different documents have
different scores; a long document loses its end and not its beginning, nor the words behind it in the prompt.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from rerankd.cli.checks.asking import Refused, Server, logit
from rerankd.cli.checks.check import Check
from rerankd.cli.checks.known_pairs import FILLER, NEAR_ALIKE, PAIRS, documents_for

_SEPARATES, _REVERSES = 0.95, 0.2
"""Share of (relevant, irrelevant) pairs in the right order: the area under the ROC curve."""
_RIGHT_SIDE = 0.75
"""Share of known pairs on their side of 0.5."""
_SAME = 2e-3
"""Difference of raw scores that float32 and another order of its sums explain, generously."""
_OTHER = 1.0
"""Difference of raw scores that no number format explains."""
_DISTINCT = 0.9
"""Share of near-alike documents that have a score of their own."""
_TWICE = 0.5, 0.7311
"""Where the sigmoid of a probability lies."""
_ROUNDED_DIGITS = 6
_WORDS = (100, 400, 1600, 6400)
"""Lengths of long documents; a word has about 1.3 tokens."""
_OVER_LONG = 12_000
"""Words of a document that few models read whole, and few servers refuse for its bytes."""
_TOO_SLOW = 504

Known = list[list[float]]
"""The scores of each known question's passages, that which answers first."""


def check_server(server: Server) -> Iterator[Check]:
    """The findings, one after another; the first that makes the others impossible is the last."""
    try:
        known = [server.scores(query, documents_for(number)) for number, (query, _) in enumerate(PAIRS)]
    except Refused as error:
        yield Check("answers", "bad", str(error), "no_answer", "see the server's log; --path names another route")
        return
    yield Check("answers", "good", _served(server))
    template = _template(known)
    yield template
    yield _calibration(known)
    more: dict[str, Callable[[Server], Check]] = {
        "company": _company, "precision": _precision, "determinism": _repetition, "length": _reads_to_the_end,
        "truncation": _cut,
    }  # fmt: skip
    for name, check in more.items():
        if name == "truncation" and template.status == "bad":
            yield Check(name, "skipped", "short documents are out of order already: longer ones would tell nothing")
            continue
        try:
            yield check(server)
        except Refused as error:
            if error.status == _TOO_SLOW:
                yield Check(name, "skipped", "the server did not answer within its deadline", "too_slow")
            else:
                yield Check(name, "bad", str(error), "no_answer", "see the server's log")


def _served(server: Server) -> str:
    info = server.info()
    if not info:
        return "a score for every document"
    name, device, dtype = (info.get(key) for key in ("served_model_name", "device", "model_dtype"))
    return f"{name} on {device} in {dtype}, a score for every document"


def separation(known: Known) -> float:
    """Share of (relevant, irrelevant) pairs over all questions in which the relevant one has the higher score."""
    good = [scores[0] for scores in known]
    others = list(itertools.chain.from_iterable(scores[1:] for scores in known))
    wins = sum((one > other) + 0.5 * (one == other) for one in good for other in others)
    return wins / (len(good) * len(others))


def _template(known: Known) -> Check:
    share = separation(known)
    says = f"{share:.0%} of relevant passages are above irrelevant ones"
    if share <= _REVERSES:
        return Check(
            "template", "bad", f"{says}: the order is reversed", "swapped_words",
            "the words that mean yes and no are swapped, or the labels of the head are",
        )  # fmt: skip
    if share < _SEPARATES:
        return Check(
            "template", "bad", f"{says}: the model does not see its own prompt", "no_template",
            "serve the prompt of the model card, with its control tokens, instruction and suffix",
        )  # fmt: skip
    return Check("template", "good", says)


def _calibration(known: Known) -> Check:
    scores = list(itertools.chain.from_iterable(known))
    good, others = [row[0] for row in known], list(itertools.chain.from_iterable(row[1:] for row in known))
    says = f"relevant passages have {fmean(good):.2f} on average, irrelevant ones {fmean(others):.2f}"
    if min(scores) < 0 or max(scores) > 1:
        return Check(
            "calibration", "warning", f"{says}: raw scores, not probabilities", "raw_scores",
            "order is what it should be, thresholds are not; ask for the sigmoid where the server has a switch",
        )  # fmt: skip
    if all(abs(sum(row) - 1) < 1e-3 for row in known):
        return Check(
            "calibration", "bad", "the scores of a list add up to 1: each depends on the others", "normalised",
            "take the sigmoid of each raw score in the place of a softmax over the documents",
        )  # fmt: skip
    if min(scores) >= _TWICE[0] and max(scores) <= _TWICE[1] and max(scores) - min(scores) > 0.05:
        return Check(
            "calibration", "bad", f"all scores are in 0.5..0.731: {says}", "sigmoid_twice",
            "the sigmoid is taken of what is a probability already",
        )  # fmt: skip
    right = fmean([*(score > 0.5 for score in good), *(score < 0.5 for score in others)])
    if right < _RIGHT_SIDE:
        return Check(
            "calibration", "warning", f"{says}: {right:.0%} are on their side of 0.5", "off_centre",
            "choose a threshold of your own, or look at the template: a wrong prompt moves all scores",
        )  # fmt: skip
    return Check("calibration", "good", says)


def _company(server: Server) -> Check:
    """A pair's score alone, among others, in another order, and beside a long document."""
    query, documents = PAIRS[0][0], [passage for _, passage in PAIRS]
    long = " ".join([FILLER] * 20)
    whole = server.scores(query, documents)
    turned = server.scores(query, documents[::-1])[::-1]
    beside = server.scores(query, [*documents, long])[:-1]
    alone = [server.scores(query, [document])[0] for document in documents[:4]]
    difference = max(_most(whole, turned), _most(whole, beside), _most(whole, alone))
    says = f"the same pair differs by up to {difference:.1e} in its raw score, alone or among others"
    if difference >= _OTHER:
        return Check(
            "company", "bad", says, "mixed_up", "scores go to other documents, or depend on padding or on neighbours"
        )
    if difference > _SAME:
        return Check("company", "bad", says, "low_precision", "compute in float32, or in int8 with exact sums")
    return Check("company", "good", says)


def _precision(server: Server) -> Check:
    """Different documents of nearly one relevance: coarse numbers make steps."""
    scores = server.scores(PAIRS[0][0], NEAR_ALIKE)
    distinct = len(set(scores))
    says = f"{len(scores)} documents that are nearly alike have {distinct} different scores"
    if distinct >= _DISTINCT * len(scores):
        return Check("precision", "good", says)
    if all(round(score, _ROUNDED_DIGITS) == score for score in scores):
        return Check("precision", "warning", f"{says}: they are rounded", "rounded", "ask for all digits")
    return Check(
        "precision", "bad", f"{says}: they come in steps", "low_precision",
        "take the difference of the two logits, or the linear head, in float32",
    )  # fmt: skip


def _repetition(server: Server) -> Check:
    query, documents = PAIRS[0][0], [passage for _, passage in PAIRS]
    first, *others = (server.scores(query, documents) for _ in range(3))
    difference = max(_most(first, other) for other in others)
    says = f"the same request, three times: raw scores differ by up to {difference:.1e}"
    if difference > _SAME:
        return Check("determinism", "bad", says, "not_deterministic", "compute in float32; is dropout switched off?")
    return Check("determinism", "good", says)


def _reads_to_the_end(server: Server) -> Check:
    """Up to which length the last sentence of a document still counts."""
    query, answer = PAIRS[0]
    read = 0
    for words in _WORDS:
        filler = _filler(words)
        try:
            with_answer, without = server.scores(query, [f"{filler} {answer}", f"{filler} {PAIRS[3][1]}"])
        except Refused as error:
            if error.status == _TOO_SLOW and read:
                return Check(
                    "length",
                    "good",
                    f"documents of {read} words are read to their end, longer ones are not answered in time",
                )
            if not read or error.status >= 500 or not error.status:
                raise
            return Check(
                "length", "warning", f"documents of {words} words are refused ({error.status}), of {read} read",
                "refuses_long", "cut documents before, or switch truncation on",
            )  # fmt: skip
        if with_answer == without:
            return _unread(read, words)
        read = words
    return Check("length", "good", f"documents of {read} words are read to their end")


def _unread(read: int, words: int) -> Check:
    says = f"of documents of {words} words the end is not read" + (f", of {read} words it is" if read else "")
    if read < _WORDS[1]:
        return Check("length", "warning", says, "reads_little", "raise the limit of tokens if the model has room")
    return Check("length", "good", says)


def _cut(server: Server) -> Check:
    """A document beyond any limit loses its end; what stands behind it in the prompt stays."""
    query, answer = PAIRS[0]
    filler = _filler(_OVER_LONG)
    try:
        relevant, irrelevant = server.scores(query, [f"{answer} {filler}", f"{PAIRS[3][1]} {filler}"])
    except Refused as error:
        if error.status >= 500 or not error.status:
            raise
        says = f"over-long documents are refused ({error.status})"
        return Check("truncation", "warning", says, "refuses_long", "cut documents before, or switch truncation on")
    says = (
        f"an over-long document that begins with the answer has {relevant:.3f}, with something else {irrelevant:.3f}"
    )
    if relevant == irrelevant:
        return Check(
            "truncation", "bad", f"{says}: its beginning is not read", "cut_at_the_wrong_end",
            "cut the document at its end",
        )  # fmt: skip
    if relevant < irrelevant:
        return Check(
            "truncation", "bad", says, "cut_template", "cut the document alone, never the prompt behind or before it"
        )
    return Check("truncation", "good", says)


def _filler(words: int) -> str:
    return " ".join(itertools.islice(itertools.cycle(FILLER.split()), words))


def _most(ones: Sequence[float], others: Sequence[float]) -> float:
    """The largest difference of raw scores; the shorter list decides how many are compared."""
    return max(abs(logit(one) - logit(other)) for one, other in zip(ones, others, strict=False))
