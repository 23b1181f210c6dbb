"""Every line against an oracle of its own in fractions, over random prices, changes, tiers, packs and usage.

The oracle knows usage as positions on a number line of exact units: the part of a step is the overlap of two
intervals. It shares no code with rating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.catalog import Catalog
from pricing.charges import CUSTOMER_USAGE_SCHEMA
from pricing.packs import PackState
from pricing.rating import rate_month

HOUR = 3_600_000
CUSTOMER, CONTRACT = "c", "HT"
Steps = Sequence[tuple[int | None, Decimal]]
Row = tuple[date, str, str, str, int]


@dataclass(frozen=True)
class Case:
    """One random month of one customer and SKU."""

    book: dict[date, Steps]
    own: dict[date, Steps]
    packs: list[tuple[str, int, Decimal, date, date, date, int]]  # id quantity price bought first last drawn before
    rows: list[Row]
    by_volume: frozenset[date] = frozenset()  # the prices that hold for all of a month's quantity, by their first day


def days(low: int = 1) -> st.SearchStrategy[date]:
    return st.integers(low, 30).map(lambda day: date(2026, 11, day))


PRICES = st.decimals(0, 50, places=4) | st.decimals(0, 1, places=9)


@st.composite
def steps(draw: st.DrawFn) -> Steps:
    bounds = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    return [(bound, draw(PRICES)) for bound in [*bounds, None]]


@st.composite
def packs(draw: st.DrawFn) -> list[tuple[str, int, Decimal, date, date, date, int]]:
    found = []
    for number in range(draw(st.integers(0, 3))):
        quantity = draw(st.integers(1, 20))
        first, last = sorted((draw(days()), draw(days())))
        price, before = draw(st.decimals(0, 100, places=2)), draw(st.integers(0, quantity * HOUR))
        found.append((f"p{number}", quantity, price, draw(days()), first, last, before))
    return found


@st.composite
def cases(draw: st.DrawFn) -> Case:
    later = st.dictionaries(days(2), steps(), max_size=2)
    book = {date(2026, 1, 1): draw(steps()), **draw(later)}
    names = st.sampled_from(["a", "b"])
    quantities = st.integers(1, 60 * HOUR) | st.integers(1, 10_000) | st.sampled_from([HOUR, 5 * HOUR, 10 * HOUR])
    rows = draw(
        st.dictionaries(st.tuples(days(), names, names, names), quantities, min_size=1, max_size=14).map(
            lambda found: [(*key, quantity) for key, quantity in found.items()]
        )
    )
    by_volume = draw(st.frozensets(st.sampled_from(sorted(book))))
    return Case(book, draw(st.just({}) | later), draw(packs()), rows, by_volume)


def rounded(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def oracle(case: Case) -> dict[tuple[str, int], tuple[int, int, list[tuple[date, str, str, str, int, int]]]]:
    """Return (quantity, amount, parts) by price and tier."""
    drawn = {pack[0]: Fraction(pack[6], HOUR) for pack in case.packs}
    pieces: dict[tuple[str, int], list[tuple[Row, Fraction, Fraction]]] = {}
    at, waiting = Fraction(0), []
    for row in sorted(case.rows):
        wanted = Fraction(row[4], HOUR)
        for name, size, price, _, _, _, _ in sorted(case.packs, key=lambda p: (p[5], p[3], p[0])):
            first, last = next((p[4], p[5]) for p in case.packs if p[0] == name)
            take = min(wanted, size - drawn[name]) if first <= row[0] <= last else Fraction(0)
            if take:
                before = rounded(Fraction(price) * 100 * drawn[name] / size)
                drawn[name] += take
                money = rounded(Fraction(price) * 100 * drawn[name] / size) - before
                pieces.setdefault((f"pack:{name}", 0), []).append((row, take, Fraction(money)))
                wanted -= take
        owner, history = ("contract:HT", case.own) if any(d <= row[0] for d in case.own) else ("book", case.book)
        since = max(d for d in history if d <= row[0])
        if len(history[since]) > 1 and since in case.by_volume:
            waiting.append((row, wanted, owner, since, history[since]))
            at += wanted
            continue
        low = Fraction(0)
        for number, (bound, unit_price) in enumerate(history[since]):
            high = at + wanted if bound is None else Fraction(bound)
            overlap = min(high, at + wanted) - max(low, at)
            if overlap > 0:
                tier = number + 1 if len(history[since]) > 1 else 0
                place = (f"{owner}:core-hour:{since}", tier)
                pieces.setdefault(place, []).append((row, overlap, overlap * Fraction(unit_price) * 100))
            low = max(low, high)
        at += wanted
    for row, wanted, owner, since, history_steps in waiting:
        number, unit_price = next(
            (n, p) for n, (bound, p) in enumerate(history_steps, 1) if bound is None or at <= bound
        )
        if wanted:
            parts = pieces.setdefault((f"{owner}:core-hour:{since}", number), [])
            parts.append((row, wanted, wanted * Fraction(unit_price) * 100))
    return {place: totals(place[0], parts) for place, parts in pieces.items()}


def totals(
    price: str, parts: list[tuple[Row, Fraction, Fraction]]
) -> tuple[int, int, list[tuple[date, str, str, str, int, int]]]:
    quantities = [int(quantity * HOUR) for _, quantity, _ in parts]
    total = rounded(sum((money for _, _, money in parts), start=Fraction(0)))
    shares = [int(money) for _, _, money in parts]
    if not price.startswith("pack:"):
        exact = [Fraction(total * quantity, sum(quantities)) for quantity in quantities]
        shares = [math.floor(share) for share in exact]
        order = sorted(range(len(exact)), key=lambda i: (-(exact[i] - shares[i]), i))
        for i in order[: total - sum(shares)]:
            shares[i] += 1
    split = [
        (*row[:4], quantity, share) for (row, _, _), quantity, share in zip(parts, quantities, shares, strict=True)
    ]
    return sum(quantities), total, split


def price_bodies(history: dict[date, Steps], by_volume: frozenset[date]) -> dict[str, dict[str, object]]:
    bodies: dict[str, dict[str, object]] = {}
    for since, steps_of_day in history.items():
        body: dict[str, object] = {"sku": "core-hour", "effective_from": since}
        if len(steps_of_day) == 1:
            body["unit_price"] = steps_of_day[0][1]
        else:
            body["tiers"] = [{"up_to": bound, "unit_price": price} for bound, price in steps_of_day]
            body["tier_mode"] = "volume" if since in by_volume else "graduated"
        bodies[f"core-hour@{since}"] = body
    return bodies


def catalog_of(case: Case) -> Catalog:
    term = {"valid_from": date(2026, 1, 1), "last_day": date(2026, 12, 31)}
    return Catalog.from_facts(
        {
            "operator": {"operator": {"id": "o", "name": "o"}},
            "contract": {
                CONTRACT: {
                    "number": CONTRACT,
                    "customer": CUSTOMER,
                    "signed_on": date(2026, 1, 1),
                    "billing": "prepaid",
                    "prices": list(price_bodies(case.own, case.by_volume).values()),
                    **term,
                }
            },
            "sku": {"core-hour": {"id": "core-hour", "product": "general-hpc", "name": "n", "unit": "core-hour"}},
            "price": price_bodies(case.book, case.by_volume),
            "pack": {
                name: {
                    "id": name,
                    "customer": CUSTOMER,
                    "contract": CONTRACT,
                    "sku": "core-hour",
                    "quantity": quantity,
                    "price": price,
                    "bought_on": bought,
                    "valid_from": first,
                    "last_day": last,
                }
                for name, quantity, price, bought, first, last, _ in case.packs
            },
        }
    )


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    filled = [
        (CUSTOMER, CONTRACT, project, user, day, cluster, "core-hour", parts)
        for day, project, user, cluster, parts in rows
    ]
    return pl.DataFrame(filled, schema=CUSTOMER_USAGE_SCHEMA, orient="row")


@settings(max_examples=400, deadline=None)
@given(case=cases())
def test_every_line_is_what_fractions_say(case: Case) -> None:
    catalog = catalog_of(case)
    states = {
        name: PackState(catalog.packs[name], before, rounded(Fraction(price) * 100 * before / (quantity * HOUR)))
        for name, quantity, price, _, _, _, before in case.packs
    }
    lines = rate_month(frame_of(case.rows), catalog, customer=CUSTOMER, month="2026-11", packs=states)
    found = {
        (line.key.sku_price_id, line.key.tier): (
            line.quantity,
            line.amount_minor,
            [(s.day, s.project, s.user, s.cluster, s.quantity, s.amount_minor) for s in line.splits],
        )
        for line in lines
    }
    assert len(found) == len(lines)
    assert found == oracle(case)
    assert sum(line.quantity for line in lines) == sum(row[4] for row in case.rows), "nothing is lost or added"


@settings(max_examples=60, deadline=None)
@given(case=cases(), data=st.data())
def test_the_order_in_which_usage_arrived_changes_nothing(case: Case, data: st.DataObject) -> None:
    catalog = catalog_of(case)
    shuffled = data.draw(st.permutations(case.rows))
    in_order, other = (
        rate_month(frame_of(rows), catalog, customer=CUSTOMER, month="2026-11", packs={})
        for rows in (case.rows, shuffled)
    )
    assert in_order == other
