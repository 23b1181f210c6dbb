"""However usage arrives, before or after closes, the sums are those of a run in which everything was known in time."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hourbook.auditing import audit

from .month_stories import Operator, Run

MONTHS = ("2026-10", "2026-11", "2026-12")
CLOSING_DAYS = ("2026-11-02", "2026-12-02", "2027-01-02")
DAYS = tuple(f"{month}-{day:02}" for month in MONTHS for day in (1, 4, 16, 30))

# What a source says: which job, when told (at the first close after it ran, or later), and with what size.
TOLD = st.tuples(
    st.sampled_from(range(6)),
    st.sampled_from(["physics", "chem", "llm", "dev", "own"]),
    st.sampled_from(DAYS),
    st.integers(0, 90),
    st.integers(0, 2),
)
Told = tuple[int, str, str, int, int]


def runs_of(told: Sequence[Told]) -> list[tuple[int, Run]]:
    """The runs, each with the close before which it arrives; a job told twice is a correction."""
    runs, first = [], dict[int, tuple[str, str]]()
    for revision, (job, account, day, size, delay) in enumerate(told, start=1):
        who, when = first.setdefault(job, (account, day))
        cards = {"card_hours": size % 13} if who in {"llm", "dev"} else {"core_hours": size}
        # In the order in which the source told it, so that what arrives later is of a later revision.
        run = Run(
            f"job-{job}", who, f"{when}T08:00", revision=revision, partition="gpu" if "card_hours" in cards else "cpu"
        )
        arrives = min(MONTHS.index(when[:7]) + delay, 2)
        runs.append((arrives, Run(**{**run.__dict__, **cards})))
    return runs


def play(folder: Path, runs: Sequence[tuple[int, Run]], *, in_time: bool) -> Operator:
    """Close three months with the usage as it arrives, or with all of it known when its own month is closed."""
    operator = Operator(folder)
    operator.at("2026-10-31T10:00")
    operator.top_up("u-pre", "7.77", "r1", "2026-10-03")
    operator.top_up("c-both", "40.00", "r2", "2026-10-03")
    for number, (month, day) in enumerate(zip(MONTHS, CLOSING_DAYS, strict=True)):
        operator.at(f"{day}T10:00")
        if in_time:
            arriving = [run for _, run in runs if MONTHS.index(run.start[:7]) == number]
        else:
            arriving = [run for arrives, run in runs if arrives == number]
        if arriving:
            operator.used(*arriving)
        operator.close(month)
    return operator


def charged(operator: Operator) -> Mapping[tuple[str, str, str, int], int]:
    """What was charged in all for each customer, month of use, SKU and tier."""
    sums: dict[tuple[str, str, str, int], int] = defaultdict(int)
    seen = set()
    for document in operator.documents():
        for line in document.lines:
            # A line that stands on two documents is one charge.
            if (document.month, document.customer.id, line.line_id) not in seen:
                seen.add((document.month, document.customer.id, line.line_id))
                sums[document.customer.id, line.original_month, line.line_id, line.tier] += line.line_amount_minor
    return {place: amount for place, amount in sums.items() if amount}


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TOLD, min_size=1, max_size=9))
def test_late_or_in_time_the_charges_are_the_same(told: list[Told]) -> None:
    runs = runs_of(told)
    with tempfile.TemporaryDirectory() as folder:
        late = play(Path(folder) / "late", runs, in_time=False)
        known = play(Path(folder) / "known", runs, in_time=True)
        assert charged(late) == charged(known)
        for operator in (late, known):
            assert audit(operator.home).findings == ()
            assert operator.rebuilt() == []
            balances_are_conserved(operator)
            operator.home.close()


def balances_are_conserved(operator: Operator) -> None:
    """Every cent charged was drawn from something, and what was paid is what is left and what was drawn."""
    for customer, paid in {"u-pre": 777, "c-both": 4000, "c-line": 0, "p-grant": 0, "u-pack": 0}.items():
        parts: dict[str, int] = defaultdict(int)
        seen = set()
        for document in operator.documents(customer=customer):
            for line in document.lines:
                if (document.month, line.line_id) not in seen:
                    seen.add((document.month, line.line_id))
                    for kind, amount in line.parts.items():
                        parts[kind] += amount
        balance = operator.balance(customer)
        wallets = [one.wallet for one in operator.documents(customer=customer) if one.wallet]
        settled = sum(wallet.arrears_settled_minor for wallet in wallets)
        assert balance.paid_minor == paid - parts["lot"] - settled
        assert balance.arrears_minor == parts["arrears"] - settled
        assert balance.credit_used_minor == parts["credit"]
        assert sum(amount for who, amount in by_customer(operator) if who == customer) == sum(parts.values())


def by_customer(operator: Operator) -> list[tuple[str, int]]:
    """What each customer was charged."""
    return [(customer, amount) for (customer, *_), amount in charged(operator).items()]


def test_a_late_month_is_charged_like_one_known_in_time(tmp_path: Path) -> None:
    told = [
        (0, "physics", "2026-10-04", 50, 0),
        (1, "llm", "2026-10-16", 11, 0),
        (2, "chem", "2026-11-16", 70, 0),
        (0, "physics", "2026-10-04", 20, 1),
        (3, "dev", "2026-10-30", 12, 1),
        (1, "llm", "2026-10-16", 0, 2),
        (4, "own", "2026-11-30", 88, 1),
    ]
    runs = runs_of(told)
    late, known = (play(tmp_path / str(in_time), runs, in_time=in_time) for in_time in (False, True))
    assert charged(late) == charged(known)
    balances_are_conserved(late)
    balances_are_conserved(known)
