"""Stories of rating that are not worked cases: what is refused, what accrual may rely on, and speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction

import polars as pl
import pytest

from base.frames import FrameError
from pricing.catalog import Catalog, PriceNotFoundError
from pricing.charges import CUSTOMER_USAGE_SCHEMA, HOUR_SCALE
from pricing.packs import PackState, packs_after, untouched_packs
from pricing.rating import rate_all, rate_month
from pricing.tiers import Step, cut_at_steps

Build = Callable[[str], Catalog]
PACK = """
[[packs]]
id = "p1"
customer = "u-north"
contract = "HT-1"
sku = "core-hour"
quantity = 3
price = "1.00"
bought_on = 2026-10-01
valid_from = 2026-10-01
last_day = 2026-12-31
"""


def usage(*rows: tuple[int, int], sku: str = "core-hour", user: str = "alice") -> pl.DataFrame:
    """Usage of u-north as (day of November, parts of the unit)."""
    filled = [("u-north", "HT-1", "condmat", user, date(2026, 11, day), "hpc1", sku, parts) for day, parts in rows]
    return pl.DataFrame(filled, schema=CUSTOMER_USAGE_SCHEMA, orient="row")


def test_usage_before_the_first_price_is_refused_not_given_away(shop: Catalog) -> None:
    with pytest.raises(PriceNotFoundError, match="a100-hour"):
        rate_all(usage((9, HOUR_SCALE), sku="a100-hour"), shop, month="2026-11", packs={})


def test_a_line_tells_its_product_unit_tax_and_prices(shop: Catalog) -> None:
    (line,) = rate_month(
        usage((10, 2 * HOUR_SCALE), sku="a100-hour"), shop, customer="u-north", month="2026-11", packs={}
    )
    assert (line.category, line.product, line.unit, line.tax_rate) == (
        "Usage",
        "ai-cloud",
        "card-hour",
        Fraction(13, 100),
    )
    assert (line.quantity, line.amount_minor) == (2 * HOUR_SCALE, 1600)
    assert line.exact_quantity == Fraction(2)
    assert line.unit_price == line.list_unit_price == Decimal(8)
    assert line.key.line_id == "u-north|HT-1|a100-hour|book:a100-hour:2026-11-10|0|2026-11"


def test_only_the_month_and_the_customer_asked_for_are_rated(shop: Catalog) -> None:
    rows = pl.concat([usage((1, HOUR_SCALE)), usage((1, HOUR_SCALE)).with_columns(day=date(2026, 12, 1))])
    (line,) = rate_month(rows, shop, customer="u-north", month="2026-11", packs={})
    assert line.quantity == HOUR_SCALE
    assert rate_month(rows, shop, customer="acme", month="2026-11", packs={}) == ()
    assert set(rate_all(rows, shop, month="2026-12", packs={})) == {"u-north"}


def test_usage_that_came_in_pieces_is_charged_like_the_whole(shop: Catalog) -> None:
    whole = rate_all(usage((3, 1000), (4, 2000)), shop, month="2026-11", packs={})
    pieces = rate_all(usage((4, 1500), (3, 999), (4, 500), (3, 1), (5, 0)), shop, month="2026-11", packs={})
    assert pieces == whole


def test_a_pack_goes_on_next_month_where_this_month_left_it(catalog_of: Build, shop_toml: str) -> None:
    catalog = catalog_of(shop_toml + PACK)
    november = usage((3, 2 * HOUR_SCALE))
    lines = rate_month(november, catalog, customer="u-north", month="2026-11", packs=untouched_packs(catalog))
    after = packs_after(untouched_packs(catalog), lines)
    assert after["p1"] == PackState(catalog.packs["p1"], 2 * HOUR_SCALE, 67)
    december = usage((3, 2 * HOUR_SCALE)).with_columns(day=date(2026, 12, 3))
    book, pack = rate_month(december, catalog, customer="u-north", month="2026-12", packs=after)
    assert (book.amount_minor, pack.quantity, pack.amount_minor) == (8, HOUR_SCALE, 33)
    assert pack.unit_price == Decimal("0.3333333333")
    assert pack.list_unit_price == Decimal("0.08")
    assert packs_after(after, [book, pack])["p1"].released_before == 100


def test_a_pack_cannot_have_given_more_than_it_holds(catalog_of: Build, shop_toml: str) -> None:
    catalog = catalog_of(shop_toml + PACK)
    overdrawn = {"p1": PackState(catalog.packs["p1"], 3 * HOUR_SCALE + 1, 100)}
    with pytest.raises(ValueError, match="pack p1: 10800001 of 10800000 parts cannot have been drawn"):
        rate_all(usage((3, 1)), catalog, month="2026-11", packs=overdrawn)


def test_pack_draws_stand_under_the_contract_that_sold_the_pack(catalog_of: Build, shop_toml: str) -> None:
    catalog = catalog_of(shop_toml + PACK)
    used = usage((3, HOUR_SCALE)).with_columns(contract=pl.lit("HT-NEXT"))
    (line,) = rate_all(used, catalog, month="2026-11", packs=untouched_packs(catalog))["u-north"]
    assert line.key.contract == "HT-1"


def test_a_month_so_far_is_the_whole_month_once_it_is_over(catalog_of: Build, shop_toml: str) -> None:
    catalog = catalog_of(shop_toml + PACK)
    packs = untouched_packs(catalog)
    rows = usage(*((day, day * 777_777) for day in range(1, 31)))
    whole = rate_all(rows, catalog, month="2026-11", packs=packs)
    assert rate_all(rows, catalog, month="2026-11", packs=packs, through=date(2026, 11, 30)) == whole
    so_far = rate_all(rows, catalog, month="2026-11", packs=packs, through=date(2026, 11, 9))
    known = rows.filter(pl.col("day") <= date(2026, 11, 9))
    assert so_far == rate_all(known, catalog, month="2026-11", packs=packs)


def test_a_list_price_that_changed_under_a_line_is_not_shown_as_one(catalog_of: Build, shop_toml: str) -> None:
    change = '\n[[prices]]\nsku = "core-hour"\neffective_from = 2026-11-04\nunit_price = 0.09\n'
    catalog = catalog_of(shop_toml + PACK + change)
    (line,) = rate_all(usage((3, 1), (4, 1)), catalog, month="2026-11", packs=untouched_packs(catalog))["u-north"]
    assert line.list_unit_price is None


def test_an_amount_beyond_the_ledger_is_refused(catalog_of: Build, shop_toml: str) -> None:
    catalog = catalog_of(shop_toml.replace("unit_price = 0.08", "unit_price = 999999999999999999"))
    with pytest.raises(OverflowError, match="beyond what the ledger can hold"):
        rate_all(usage((1, 10**6 * HOUR_SCALE)), catalog, month="2026-11", packs={})


def test_quantities_that_would_wrap_when_added_are_refused(shop: Catalog) -> None:
    with pytest.raises(OverflowError, match="adds up to 9223372036854775808"):
        rate_all(usage((1, 2**62), (1, 2**62)), shop, month="2026-11", packs={})


def test_negative_usage_is_refused(shop: Catalog) -> None:
    with pytest.raises(ValueError, match="negative quantities"):
        rate_all(usage((1, -1)), shop, month="2026-11", packs={})


def test_a_frame_of_another_shape_is_refused(shop: Catalog) -> None:
    with pytest.raises(FrameError, match="quantity is Float64, not Int64"):
        rate_all(usage((1, 1)).with_columns(pl.col("quantity").cast(pl.Float64)), shop, month="2026-11", packs={})


def test_a_price_without_an_open_end_gives_nothing_away() -> None:
    with pytest.raises(ValueError, match="1 parts lie beyond the last step"):
        list(cut_at_steps([Step(1, 10, Decimal(1))], 5, 6))


def test_a_quantity_that_ends_on_a_bound_leaves_no_empty_part() -> None:
    steps = [Step(1, 10, Decimal(2)), Step(2, None, Decimal(1))]
    assert list(cut_at_steps(steps, 5, 5)) == [(steps[0], 5)]
    assert list(cut_at_steps(steps, 10, 5)) == [(steps[1], 5)]


def test_all_customers_at_once_are_charged_like_each_alone(catalog_of: Build, shop_toml: str) -> None:
    other = PACK.replace('"p1"', '"p2"').replace("u-north", "acme").replace("HT-1", "HT-2")
    catalog = catalog_of(shop_toml + PACK + other)
    packs = untouched_packs(catalog)
    north = usage((3, 5 * HOUR_SCALE), (4, 7))
    acme = north.with_columns(customer=pl.lit("acme"), contract=pl.lit("HT-2"), project=pl.lit("rd"))
    rows = pl.concat([acme, north])
    together = rate_all(rows, catalog, month="2026-11", packs=packs)
    assert list(together) == ["acme", "u-north"]
    for customer, lines in together.items():
        assert lines == rate_month(rows, catalog, customer=customer, month="2026-11", packs=packs)
        assert {line.key.customer for line in lines} == {customer}


def test_thirty_thousand_rows_are_rated_in_seconds(shop: Catalog) -> None:
    started = time.perf_counter()
    rows = pl.concat([usage(*((day, 1000 + day) for day in range(1, 31)), user=f"u{i}") for i in range(1000)])
    (line,) = rate_all(rows, shop, month="2026-11", packs={})["u-north"]
    assert len(line.splits) == rows.height == 30_000
    assert time.perf_counter() - started < 20
