"""Metering's tables: the inbox of accepted batches, quarantine, rollup plans and what is rolled up, leases."""

from metering.store.inbox import BatchReceipt, InboxBatchRow, accept, batch_events, inbox_batches, mark_sealed, unsealed
from metering.store.leases import LeaseRow, lease_holder, release_lease, take_lease
from metering.store.plans import (
    RollupPartitionRow,
    RollupPlanRow,
    plan_number,
    plan_of,
    register_partition,
    register_plan,
    rolled_up,
)
from metering.store.quarantine import (
    QuarantineRow,
    QuarantineStatus,
    close_entry,
    quarantine,
    quarantine_entry,
    quarantine_held,
)

__all__ = [
    "BatchReceipt",
    "InboxBatchRow",
    "LeaseRow",
    "QuarantineRow",
    "QuarantineStatus",
    "RollupPartitionRow",
    "RollupPlanRow",
    "accept",
    "batch_events",
    "close_entry",
    "inbox_batches",
    "lease_holder",
    "mark_sealed",
    "plan_number",
    "plan_of",
    "quarantine",
    "quarantine_entry",
    "quarantine_held",
    "register_partition",
    "register_plan",
    "release_lease",
    "rolled_up",
    "take_lease",
    "unsealed",
]
