"""Questions with one passage that answers each, so plain that any reranker tells them from the others' passages."""

from __future__ import annotations

from collections.abc import Sequence

PAIRS: Sequence[tuple[str, str]] = (
    ("What is the capital of France?", "Paris is the capital of France and its largest city."),
    ("How many legs does a spider have?", "A spider has eight legs, two more than an insect."),
    ("When did the First World War begin?", "The First World War began in the summer of 1914."),
    ("How do I boil an egg?", "To boil an egg, put it into boiling water for eight minutes."),
    ("Who wrote Romeo and Juliet?", "Romeo and Juliet is a tragedy written by William Shakespeare."),
    ("At what temperature does water boil?", "At sea level water boils at a temperature of 100 degrees Celsius."),
    ("Which planet is the largest?", "Jupiter is the largest planet of the solar system."),
    ("How do I reset my password?", "To reset your password, open the settings and choose a new password."),
    ("中国的首都是哪里？", "中国的首都是北京，它也是全国的政治中心。"),
    ("怎样煮米饭？", "煮米饭时，先把米洗净，再加水煮二十分钟。"),
    ("谁写了《红楼梦》？", "《红楼梦》的作者是清代作家曹雪芹。"),
    ("太阳系最大的行星是什么？", "木星是太阳系中最大的行星。"),
)

OTHERS = 3
"""Passages of other questions beside the one that answers."""


def documents_for(number: int) -> list[str]:
    """The passage that answers question ``number``, and three that answer others."""
    # Steps that never meet a question on the same matter in the other language.
    places = [number, *((number + step) % len(PAIRS) for step in (2, 3, 7))]
    return [PAIRS[place][1] for place in places]


NEAR_ALIKE = [f"Paris is the capital of France, says page {page} of the guide." for page in range(101, 165)]
"""Different documents of nearly one relevance: a fine score tells them all apart, a coarse one makes steps."""

FILLER = "The report goes on with a list of things that were seen on that day, and says no more about any of them."
"""A sentence that answers nothing."""
