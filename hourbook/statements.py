"""Statements as they arrive: one, an array of them, or one per line; refused as a whole if any cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from metering.completeness import Statement

MAX_STATEMENTS = 10_000


class StatementsRefusedError(ValueError):
    """Statements that cannot be taken; the message says which and why."""


def read_statements(payload: bytes) -> list[Statement]:
    """Read statements from JSON or JSON lines."""
    items = _items(payload)
    if not 0 < len(items) <= MAX_STATEMENTS:
        raise StatementsRefusedError(f"send 1 to {MAX_STATEMENTS:,} statements at once, not {len(items):,}")
    return [_statement(number, item) for number, item in enumerate(items, start=1)]


def _items(payload: bytes) -> Sequence[Any]:
    try:
        read = orjson.loads(payload)
    except orjson.JSONDecodeError:
        lines = [line for line in payload.split(b"\n") if line.strip()]
        try:
            return [orjson.loads(line) for line in lines]
        except orjson.JSONDecodeError as error:
            raise StatementsRefusedError(f"statements are JSON, or one JSON object per line: {error}") from error
    return read if isinstance(read, list) else [read]


def _statement(number: int, item: object) -> Statement:
    try:
        return Statement.model_validate(item)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise StatementsRefusedError(f"statement {number}: {where}: {first['msg']}") from error
