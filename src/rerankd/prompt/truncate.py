"""Who loses tokens when a pair is too long.

The budget is what the limit leaves beside the template's own tokens. Instruction, query and document share it:

1. The template is never touched: frame and labels survive, and the answer's frame stays last.
2. The instruction is never cut, for half an instruction is another instruction. One that takes more than half
   of the budget is refused.
3. The document goes first, down to a quarter of the budget.
4. Where that is not enough the query is over-long: it is cut to its share (``query_truncation_share`` of the budget,
   less if the document's quarter needs it), and the document gets all that this frees.

The rule looks at one pair alone: a pair that fits is never touched, and its score does not depend on the other
documents of the request. A query loses its end, a document its end or (side ``left``) its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

DOCUMENT_SHARE = 0.25
"""Share of the budget that a document keeps, however long the query is."""
INSTRUCTION_SHARE = 0.5
"""Share of the budget that an instruction may take."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Tokens that the query and the document of a pair may keep."""

    query: int
    document: int


def divide(budget: int, instruction: int, query: int, document: int, query_truncation_share: float) -> Shares:
    """Divide a budget of tokens by the rule above.

    Args:
        budget: tokens for instruction, query and document together.
        instruction: tokens of the instruction, at most half of the budget.
        query: tokens of the whole query.
        document: tokens of the whole document.
        query_truncation_share: share of the budget that an over-long query is cut down to.

    Returns:
        Shares with instruction + query + document <= budget.
    """
    room = budget - instruction
    floor = min(document, int(budget * DOCUMENT_SHARE))
    if query + floor > room:
        query = min(query, int(budget * query_truncation_share), room - floor)
    return Shares(query=query, document=min(document, room - query))
