"""Drawdown and accrual against an oracle that imports nothing of the project, on random months of one customer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.accrual import FundedSource, Standing, accrue
from ledger.drawdown import CreditLine, DayCharge, Grant, Lot, Means, draw_down
from tests.oracles.money_oracle import Charge, Pot, Wallet, draw_month, keep_books
from tests.oracles.month_oracle import days_of
from tests.oracles.price_oracle import LAST_DAY

from .drawdown_stories import CONTRACT, FIRST, LAST, SIX_PERCENT, all_means, charges

LINE = "u-north|{0}|{1}|book:{1}:2026-01-01|0|2026-11"
PACK_LINE = "u-north|{0}|{1}|pack:pack-7|0|2026-11"
PACK_PRICE = 200_000


def timely(charge: DayCharge, index: int) -> DayCharge:
    """Say that a charge is of the day itself, on a line of its own SKU, every seventh covered by a pack."""
    in_pack = index % 7 == 3
    line = (PACK_LINE if in_pack else LINE).format(charge.contract, charge.sku)
    user = f"user-{index}"  # no two charges are the same
    return replace(charge, usage_day=charge.day, line_id=line, pack="pack-7" if in_pack else "", user=user)


def as_oracle_sees(usage: list[DayCharge]) -> list[Charge]:
    return sorted(
        Charge(c.day, c.sku, c.project, c.user, c.cluster, c.line_id, c.contract, c.amount_minor, c.tax_rate)
        for c in usage
    )


def wallet_of(means: Means) -> Wallet:
    grants = sorted(means.grants, key=lambda g: (g.last_day or LAST_DAY, g.granted_on, g.source_id))
    wallet = Wallet([pot_of(grant) for grant in grants], [pot_of(lot) for lot in means.lots])
    for line in means.credit_lines:
        rest = line.rest_minor
        wallet.credit[line.contract] = Pot("credit", line.contract, line.contract, "", FIRST, LAST, rest, rest)
    return wallet


def pot_of(source: Lot | Grant) -> Pot:
    name, contract, rest, last = source.source_id, source.contract, source.rest_minor, source.last_day or LAST_DAY
    if isinstance(source, Lot):
        return Pot("lot", name, contract, source.project, source.received_on, last, rest, rest)
    return Pot("grant", name, contract, "", source.granted_on, last, rest, rest)


def without_payments(line: CreditLine) -> CreditLine:
    return replace(line, payments=())


@given(st.lists(charges(corrections=False), max_size=30), all_means())
@settings(max_examples=150, deadline=None)
def test_a_random_month_is_drawn_and_booked_as_the_oracle_says(usage: list[DayCharge], means: Means) -> None:
    means = replace(means, credit_lines=tuple(map(without_payments, means.credit_lines)))
    usage = [timely(charge, index) for index, charge in enumerate(usage)]
    drawdown = draw_down(usage, means, first=FIRST, last=LAST)
    funded = {lot.source_id: FundedSource(lot.source_id, lot.rest_minor, SIX_PERCENT, 0) for lot in means.lots}
    funded["pack-7"] = FundedSource("pack-7", PACK_PRICE, SIX_PERCENT, 0)
    accrual = accrue("u-north", drawdown, Standing(funded, {}))

    wallet = wallet_of(means)
    draw_month(wallet, as_oracle_sees(usage), days_of("2026-11"))
    books = keep_books(wallet, {"pack-7": PACK_PRICE}, SIX_PERCENT)

    assert [(d.charge.user, d.kind, d.source_id, d.amount_minor) for d in drawdown.draws] == [
        (d.charge.user, d.kind, d.source, d.amount) for d in wallet.drawn
    ]
    assert {lot.source_id: lot.rest_minor for lot in drawdown.left.lots} == {p.source: p.rest for p in wallet.lots}
    assert sum(s.amount_minor for s in drawdown.settlements) == sum(wallet.settled.values())
    owed = {(o.contract, o.project): o.amount_minor for o in drawdown.left.arrears}
    assert owed == {place: amount for place, amount in wallet.arrears.items() if amount}
    moved: dict[str, int] = defaultdict(int)
    for key, amount in accrual.movements.items():
        if key.asset == "CNY":
            moved[key.code] += amount
    assert {k: v for k, v in moved.items() if v} == {k: v for k, v in books.moved.items() if v}


def test_the_random_months_reach_every_rule() -> None:
    """The generator would prove little if it never made a settlement, a project's money or another tax rate."""
    seen: set[str] = set()

    @given(st.lists(charges(corrections=False), min_size=10, max_size=30), all_means())
    @settings(max_examples=80, deadline=None, database=None, derandomize=True)
    def look(usage: list[DayCharge], means: Means) -> None:
        drawdown = draw_down(usage, means, first=FIRST, last=LAST)
        seen.update(draw.kind for draw in drawdown.draws)
        bound = {lot.source_id for lot in means.lots if lot.project}
        foreign = Fraction(13, 100)
        seen.update("settled" for _ in drawdown.settlements)
        seen.update("bound" for draw in drawdown.draws if draw.source_id in bound)
        seen.update("foreign" for draw in drawdown.draws if draw.kind == "lot" and draw.charge.tax_rate == foreign)
        ends = {lot.source_id: lot.last_day for lot in means.lots if lot.last_day}
        late = [d for d in drawdown.draws if d.charge.day > ends.get(d.source_id, LAST + timedelta(days=99))]
        seen.update("late" for _ in late)

    look()
    assert seen >= {"grant", "lot", "credit", "arrears", "settled", "bound", "foreign", "late"}, CONTRACT
