"""Fixtures for all tests; each kind in a module of its own."""

from __future__ import annotations

pytest_plugins = ["tests.redis_fixtures", "tests.tokenizer_fixtures"]
