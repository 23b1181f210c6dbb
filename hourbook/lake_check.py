"""Is this the lake of this home? A lake elsewhere, or an older copy, would lose usage without a word."""

from __future__ import annotations

from sqlalchemy import func
from sqlmodel import Session, col, select

from metering import store as metering
from metering.lake import EventLake


class OtherLakeError(RuntimeError):
    """The lake lacks batches that the inbox has handed over."""

    def __init__(self, lake: EventLake, held: int, handed_over: int) -> None:
        super().__init__(
            f"the lake at {lake.root} holds batches up to {held}, but the inbox has handed over {handed_over}; "
            "set HOURBOOK_LAKE to where this home's lake lies, or bring back its latest copy"
        )


def refuse_other_lake(session: Session, lake: EventLake) -> None:
    """Refuse a lake that does not hold what this home's inbox has handed over to it."""
    row = metering.InboxBatchRow
    handed_over = session.exec(select(func.max(row.batch_seq)).where(col(row.sealed).is_(other=True))).one() or 0
    held = lake.sealed_batch()
    if held < handed_over:
        raise OtherLakeError(lake, held, handed_over)
