"""Who loses tokens when a pair is too long.

The budget is what the limit leaves beside the template's own tokens. Instruction, query and document share it:

1. The template is never touched: frame and labels survive, and the answer's frame stays last.
2. The instruction is never cut, for half an instruction is another instruction. One that takes more than half
   of the budget is refused.
3. The document goes first, down to its floor: a quarter of the budget, or more where ``query_truncation_share``
   leaves the query less than three quarters of the rest.
4. Where that is not enough the query loses what has to go, in steps of 1/64 of the budget.

The rule looks at one pair alone: a pair that fits is never touched, and its score does not depend on the other
documents of the request. A query loses its end, a document its end or (side ``left``) its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

DOCUMENT_SHARE = 0.25
"""Share of the budget that a document keeps, however long the query is."""
INSTRUCTION_SHARE = 0.5
"""Share of the budget that an instruction may take."""
_STEPS = 64
"""A query is cut at few lengths, so that documents of all lengths find it cut, encoded and computed already."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Tokens that the query and the document of a pair may keep."""

    query: int
    document: int


def divide(budget: int, instruction: int, query: int, document: int, query_share: float) -> Shares:
    """Divide a budget of tokens by the rule above.

    Args:
        budget: tokens for instruction, query and document together.
        instruction: tokens of the instruction, at most half of the budget.
        query: tokens of the whole query.
        document: tokens of the whole document.
        query_share: share of what the instruction leaves that a query may take from a long document.

    Returns:
        Shares with instruction + query + document <= budget.
    """
    room = budget - instruction
    step = max(budget // _STEPS, 1)
    floor = max(int(budget * DOCUMENT_SHARE), int(room * (1 - query_share)))
    if query + min(document, floor) > room:
        query = min(query, room - min(-(-document // step) * step, floor))
    return Shares(query=query, document=min(document, room - query))
