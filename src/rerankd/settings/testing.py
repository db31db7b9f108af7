"""What only tests may set: the fake engine and its script.

The fake engine answers without a model, by a hash of the ids: whoever ran it by mistake would take noise for a
ranking. So it is no choice of the product. Help and documentation do not name it, and ``engine=fake`` and
``fake_script`` are refused like any unknown word, unless ``RERANKD_TESTING=1`` is in the environment, as this
project's tests and benchmarks put it there. A program that wants the engine all the same has its class.
"""

from __future__ import annotations

import os

TESTING_VARIABLE = "RERANKD_TESTING"


def is_testing() -> bool:
    """Whether this process, or the one that started it, said that it is a test."""
    return os.environ.get(TESTING_VARIABLE) == "1"
