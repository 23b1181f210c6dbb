"""SQL column types that mean the same on SQLite (STRICT tables) and PostgreSQL.

Rows hold text, integers and bytes only: instants are microseconds since 1970 in UTC, days are ISO text, flags are 0
or 1, amounts are integers in minor units, decimals and JSON are text. STRICT tables of SQLite refuse most other types.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Dialect, Integer, LargeBinary, Text, literal
from sqlalchemy.sql import operators
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Bytes = LargeBinary
# INTEGER in SQLite (a STRICT table knows no BIGINT), BIGINT in PostgreSQL.
BigInt = BigInteger().with_variant(Integer(), "sqlite")


class Instant(TypeDecorator[datetime]):
    """An instant with a zone, kept as integer microseconds since 1970 in UTC; naive values are refused."""

    impl = BigInteger().with_variant(Integer(), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002
        """Turn an instant into microseconds."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no zone; only instants are stored")
        return (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ANN401, ARG002
        """Turn microseconds into an instant in UTC."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


class Day(TypeDecorator[date]):
    """A calendar day, kept as ISO text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: date | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002
        """Turn a day into ISO text."""
        return None if value is None else value.isoformat()

    def process_result_value(self, value: Any, dialect: Dialect) -> date | None:  # noqa: ANN401, ARG002
        """Turn ISO text into a day."""
        return None if value is None else date.fromisoformat(value)


class Flag(TypeDecorator[bool]):
    """Yes or no, kept as 1 or 0."""

    impl = Integer
    cache_ok = True

    class Comparator(TypeDecorator.Comparator[bool]):
        """Compares with 1 or 0: `IS true` and `= true` mean nothing to PostgreSQL where a flag is a number."""

        def operate(self, op: OperatorType, *other: Any, **kwargs: Any) -> ColumnElement[Any]:  # noqa: ANN401
            """Hand yes or no over as the column keeps it."""
            kept = [literal(value, Flag) if isinstance(value, bool) else value for value in other]
            return super().operate(operators.eq if op is operators.is_ else op, *kept, **kwargs)

    comparator_factory = Comparator

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002, FBT001
        """Turn yes or no into 1 or 0."""
        return None if value is None else int(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bool | None:  # noqa: ANN401, ARG002
        """Turn 1 or 0 into yes or no."""
        return None if value is None else bool(value)


class ForeignText(TypeDecorator[str]):
    """Text from outside, which may hold anything: NUL, which PostgreSQL's text cannot, is kept as its symbol."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002
        """Turn NUL into its symbol; so it is found again, too."""
        return None if value is None else value.replace("\0", "\N{SYMBOL FOR NULL}")
