"""Stories of usage finding its owner, contract and SKU, and of usage that finds none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.rollup import ROLLUP_SCHEMA
from pricing.assignment import Assignment, SpanError, assign, label
from pricing.catalog import Catalog
from pricing.charges import CUSTOMER_USAGE_SCHEMA
from pricing.exceptions import GROUP, exception_id
from pricing.models import Mapping, WriteOff

Build = Callable[[str], Catalog]
CORES = "measure:core_without_cards"
MIDNIGHT = datetime(2026, 11, 1, 16, tzinfo=UTC)  # of 2 November in Shanghai


def row(day: int = 2, **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - a column has its own type
    """One row of the rollup, a whole day of November in Shanghai."""
    start = MIDNIGHT + timedelta(days=day - 2)
    return {
        "start_date": "2026-11-01",
        "span_start": start,
        "span_end": start + timedelta(days=1),
        "cluster": "hpc1",
        "partition": "cpu",
        "qos": "normal",
        "account": "grp_condmat",
        "user": "alice",
        "resource": CORES,
        "quantity": 3600,
        "jobs": 0,
        **facts,
    }


def rollup(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ROLLUP_SCHEMA)


def only_usage(assignment: Assignment) -> dict[str, Any]:
    assert assignment.exceptions == ()
    assert assignment.usage.height == 1
    return assignment.usage.row(0, named=True)


def codes(assignment: Assignment) -> list[str]:
    return [exception.code for exception in assignment.exceptions]


def test_usage_goes_to_project_contract_and_local_day(shop: Catalog) -> None:
    assert only_usage(assign(rollup(row()), shop)) == {
        "customer": "u-north",
        "contract": "HT-1",
        "project": "condmat",
        "user": "alice",
        "day": date(2026, 11, 2),
        "cluster": "hpc1",
        "sku": "core-hour",
        "quantity": 3_600_000,
    }


def test_the_mapping_that_names_the_user_goes_before_the_one_for_the_account(shop: Catalog) -> None:
    assert only_usage(assign(rollup(row(user="bob")), shop))["project"] == "astro"


def test_a_mapping_for_any_cluster_yields_to_one_of_the_cluster(catalog_of: Build, shop_toml: str) -> None:
    everything = '\n[[mappings]]\ncluster = "hpc1"\naccount = "*"\nproject = "u-north/astro"\n'
    catalog = catalog_of(shop_toml + everything)
    assert only_usage(assign(rollup(row(account="acme_rd")), catalog))["customer"] == "u-north"
    assert only_usage(assign(rollup(row(account="acme_rd", cluster="hpc2")), catalog))["customer"] == "acme"


def test_a_mapping_holds_on_its_local_days_both_ends_included(catalog_of: Build, shop_toml: str) -> None:
    dated = """
[[mappings]]
cluster = "hpc1"
account = "guest"
project = "acme/rd"
valid_from = 2026-11-03
last_day = 2026-11-04
"""
    catalog = catalog_of(shop_toml + dated)
    found = assign(rollup(*(row(day, account="guest") for day in (2, 3, 4, 5))), catalog)
    assert found.usage["day"].to_list() == [date(2026, 11, 3), date(2026, 11, 4)]
    (exception,) = found.exceptions
    assert (exception.code, exception.first_day, exception.last_day) == (
        "unassigned",
        date(2026, 11, 2),
        date(2026, 11, 5),
    )


def test_a_second_belongs_to_the_day_of_its_customers_zone(catalog_of: Build, shop_toml: str) -> None:
    text = shop_toml.replace('billing = "credit_line"', 'billing = "credit_line"\ntimezone = "UTC"')
    evening = row(account="acme_rd", span_end=MIDNIGHT + timedelta(hours=8))
    found = assign(rollup(evening, {**evening, "account": "grp_condmat"}), catalog_of(text))
    assert dict(found.usage.select("customer", "day").iter_rows()) == {
        "acme": date(2026, 11, 1),
        "u-north": date(2026, 11, 2),
    }


def test_a_rollup_cut_for_other_zones_is_refused(catalog_of: Build, shop_toml: str) -> None:
    text = shop_toml.replace('billing = "credit_line"', 'billing = "credit_line"\ntimezone = "UTC"')
    with pytest.raises(SpanError, match="lies on two days of UTC; roll up again"):
        assign(rollup(row(account="acme_rd")), catalog_of(text))


def test_cores_are_cpus_by_what_the_cluster_counted_on_that_day(shop: Catalog) -> None:
    usage = assign(rollup(row(15), row(16)), shop).usage
    assert usage["quantity"].to_list() == [3_600_000, 1_800_000]


def test_cards_are_counted_in_thousandths(shop: Catalog) -> None:
    found = only_usage(assign(rollup(row(10, resource="card:a100", quantity=500 * 3600)), shop))
    assert (found["sku"], found["quantity"]) == ("a100-hour", 1_800_000)


def test_a_counter_is_charged_as_it_is_and_nodes_by_the_hour(catalog_of: Build, shop_toml: str) -> None:
    text = f"""{shop_toml}
[[skus]]
id = "node-hour"
product = "general-hpc"
name = "n"
unit = "node-hour"
[[skus]]
id = "run"
product = "software"
name = "n"
unit = "piece"
[[sku_rules]]
order = 1
resource = "node"
sku = "node-hour"
[[sku_rules]]
order = 2
resource = "counter:runs"
sku = "run"
[[prices]]
sku = "node-hour"
effective_from = 2026-01-01
unit_price = 1
[[prices]]
sku = "run"
effective_from = 2026-01-01
unit_price = 1
"""
    rows = rollup(row(resource="node", quantity=7), row(resource="counter:runs", quantity=7))
    usage = assign(rows, catalog_of(text)).usage
    assert dict(usage.select("sku", "quantity").iter_rows()) == {"node-hour": 7000, "run": 7}


def test_the_first_rule_in_order_decides(catalog_of: Build, shop_toml: str) -> None:
    rules = """
[[sku_rules]]
order = 1
cluster = "hpc1"
qos = "free"
resource = "*"
included = true
[[sku_rules]]
order = 99
resource = "card:*"
sku = "a100-hour"
"""
    catalog = catalog_of(shop_toml + rules)
    rows = rollup(row(10, qos="free"), row(10, resource="card:v100", quantity=1000), row(10))
    usage = assign(rows, catalog).usage
    assert dict(usage.select("sku", "quantity").iter_rows()) == {"core-hour": 3_600_000, "a100-hour": 1000}


@pytest.mark.parametrize(
    ("facts", "code", "advice"),
    [
        ({"account": "stranger"}, "unassigned", "map cluster, account and user"),
        ({"partition": "secret"}, "unknown_partition", "add it to `partitions`"),
        ({"resource": "card:unknown"}, "unmatched", "add one under [[sku_rules]]"),
        ({"resource": "card:a100"}, "unpriced", "add one under [[prices]]"),
    ],
)
def test_usage_that_cannot_be_charged_is_named_with_what_to_do(
    shop: Catalog, facts: dict[str, Any], code: str, advice: str
) -> None:
    found = assign(rollup(row(**facts)), shop)
    (exception,) = found.exceptions
    assert (exception.code, exception.quantity, exception.month) == (code, 3600, "2026-11")
    assert advice in exception.message
    assert found.usage.is_empty()


def test_usage_outside_every_contract_is_named(catalog_of: Build, shop_toml: str) -> None:
    ended = catalog_of(
        shop_toml.replace('last_day = 2026-12-31\nbilling = "prepaid"', 'last_day = 2026-11-02\nbilling = "prepaid"')
    )
    found = assign(rollup(row(2), row(3), row(4)), ended)
    (exception,) = found.exceptions
    assert (exception.code, exception.first_day, exception.customers) == (
        "no_contract",
        date(2026, 11, 3),
        ("u-north",),
    )


def test_usage_stands_under_the_contract_of_its_project_else_the_one_for_the_rest(
    catalog_of: Build, shop_toml: str
) -> None:
    catalog = catalog_of(f"""{shop_toml}
[[contracts]]
number = "HT-9"
customer = "u-north"
signed_on = 2026-01-05
valid_from = 2026-11-03
last_day = 2026-12-31
billing = "prepaid"
projects = ["astro"]
""")
    usage = assign(rollup(row(2, user="bob"), row(3, user="bob"), row(3)), catalog).usage
    assert sorted(usage.select("project", "day", "contract").rows()) == [
        ("astro", date(2026, 11, 2), "HT-1"),
        ("astro", date(2026, 11, 3), "HT-9"),
        ("condmat", date(2026, 11, 3), "HT-1"),
    ]
    for contract_row in usage.iter_rows(named=True):
        looked_up = catalog.contract_on("u-north", contract_row["project"], contract_row["day"])
        assert looked_up is not None
        assert looked_up.number == contract_row["contract"]


def test_a_price_of_the_contract_alone_is_a_price(catalog_of: Build, shop_toml: str) -> None:
    own = '[[contracts.prices]]\nsku = "a100-hour"\neffective_from = 2026-11-03\nunit_price = 7\n'
    catalog = catalog_of(shop_toml.replace("payment_days = 30\n", f"payment_days = 30\n{own}"))
    rows = [row(day, account=who, resource="card:a100") for day in (2, 3) for who in ("acme_rd", "grp_condmat")]
    found = assign(rollup(*rows), catalog)
    assert found.usage.select("customer", "day").rows() == [("acme", date(2026, 11, 3))]
    assert [(e.code, e.account, e.last_day.day) for e in found.exceptions] == [
        ("unpriced", "acme_rd", 2),
        ("unpriced", "grp_condmat", 3),
    ]


def test_included_resources_of_an_unassigned_account_do_not_repeat_the_question(shop: Catalog) -> None:
    rows = rollup(
        row(account="x"), row(account="x", resource="cpu"), row(account="x", resource="wall", jobs=3, quantity=60)
    )
    (exception,) = assign(rows, shop).exceptions
    assert (exception.resource, exception.jobs) == (CORES, 3)


def test_an_unknown_partition_is_never_free_even_where_its_resource_is_included(shop: Catalog) -> None:
    assert codes(assign(rollup(row(resource="cpu", partition="secret")), shop)) == ["unknown_partition"]


def test_a_cluster_that_lists_no_partitions_or_is_not_described_has_any(shop: Catalog) -> None:
    assert codes(assign(rollup(row(cluster="hpc2", account="acme_rd", partition="p9")), shop)) == []


def test_exceptions_are_grouped_by_month_and_named_for_ever(shop: Catalog) -> None:
    rows = [row(day, account="x", qos=qos) for day in (2, 3) for qos in ("normal", "high")] + [row(31, account="x")]
    found = assign(rollup(*rows), shop).exceptions
    assert [(e.month, e.quantity) for e in found] == [("2026-11", 4 * 3600), ("2026-12", 3600)]
    again = assign(rollup(*reversed(rows[:-1])), shop).exceptions
    assert again[0].id == found[0].id == exception_id({column: getattr(found[0], column) for column in GROUP})
    assert found[0].id == "U-ba2ac1c3", "a decision recorded today must hold in every later version"


def test_a_write_off_unblocks_and_stays_counted(shop: Catalog) -> None:
    rows = rollup(row(account="x"), row())
    (exception,) = assign(rows, shop).exceptions
    decision = WriteOff(id=exception.id, reason="test of the network", quantity=exception.quantity)
    decided = replace(shop, write_offs={exception.id: decision})
    found = assign(rows, decided)
    assert found.exceptions == ()
    assert found.written_off == (exception,)
    assert (found.sums[CORES].assigned, found.sums[CORES].written_off, found.sums[CORES].total) == (3600, 3600, 7200)
    more = assign(pl.concat([rows, rollup(row(3, account="x"))]), decided)
    assert codes(more) == ["unassigned"], "usage that came after the decision needs a new one"


def test_quantities_too_large_for_milliseconds_are_refused(shop: Catalog) -> None:
    with pytest.raises(OverflowError, match="beyond what can be priced"):
        assign(rollup(row(quantity=2**53)), shop)


def test_an_empty_rollup_and_an_empty_catalog_are_no_error(shop: Catalog) -> None:
    empty = assign(rollup(), shop)
    assert (empty.usage.schema, empty.exceptions, empty.sums) == (CUSTOMER_USAGE_SCHEMA, (), {})
    assert codes(assign(rollup(row()), Catalog())) == ["unassigned"]


def test_the_usage_report_is_labelled_without_prices_or_contracts(shop: Catalog) -> None:
    rows = rollup(row(), row(resource="cpu"), row(account="x"), row(account="acme_rd", resource="card:a100"))
    found = label(rows, replace(shop, prices={}, contracts={}))
    assert found.select(rows.columns).equals(rows), "labels neither drop, add nor move rows"
    assert found.select("customer", "project", "customer_type", "sku", "product").rows() == [
        ("u-north", "condmat", "university", "core-hour", "general-hpc"),
        ("u-north", "condmat", "university", "", ""),
        ("", "", "", "core-hour", "general-hpc"),
        ("acme", "rd", "company", "a100-hour", "ai-cloud"),
    ]
    assert label(rows, Catalog())["customer"].unique().to_list() == [""]


NAMES = st.sampled_from(["a", "b"])
PATTERNS = st.sampled_from(["a", "b", "*"])


@settings(max_examples=100, deadline=None)
@given(
    patterns=st.lists(st.tuples(PATTERNS, PATTERNS, PATTERNS), unique=True, max_size=12),
    usage=st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=8),
)
def test_the_most_specific_mapping_wins(
    patterns: list[tuple[str, str, str]], usage: list[tuple[str, str, str]]
) -> None:
    mappings = {
        "/".join(names): Mapping(cluster=names[0], account=names[1], user=names[2], project=f"c/p{number}")
        for number, names in enumerate(patterns)
    }
    rows = rollup(*(row(cluster=cluster, account=account, user=user) for cluster, account, user in usage))
    found = label(rows, Catalog(mappings=mappings))["project"].to_list()
    for names, project in zip(usage, found, strict=True):
        fits = [p for p in patterns if all(x in {"*", name} for x, name in zip(p, names, strict=True))]
        best = max(fits, key=lambda p: [x != "*" for x in p], default=None)
        assert project == ("" if best is None else f"p{patterns.index(best)}")


def test_a_month_of_three_hundred_thousand_rows_is_assigned_at_once(shop: Catalog) -> None:
    days, accounts = pl.DataFrame({"day": range(30)}), pl.DataFrame({"number": range(2500)})
    one = pl.DataFrame([row(1)], schema=ROLLUP_SCHEMA)
    resources = pl.DataFrame({"resource": ["cpu", "node", "wall", CORES]})
    rows = (
        one.drop("resource")
        .join(days, how="cross")
        .join(accounts, how="cross")
        .join(resources, how="cross")
        .with_columns(
            pl.col("span_start") + pl.duration(days="day"),
            pl.col("span_end") + pl.duration(days="day"),
            account=pl.format("grp_{}", pl.col("number") % 500),
            user=pl.format("u{}", "number"),
        )
        .select(list(ROLLUP_SCHEMA))
    )
    groups = {
        f"grp_{i}": Mapping(cluster="hpc1", account=f"grp_{i}", project=f"{'u-north/condmat' if i % 2 else 'acme/rd'}")
        for i in range(500)
    }
    catalog = replace(shop, mappings=groups)
    started = time.perf_counter()
    found = assign(rows, catalog)
    seconds = time.perf_counter() - started
    assert rows.height == 300_000
    assert found.sums[CORES].assigned == 75_000 * 3600
    assert found.usage.height == 75_000
    assert seconds < 5, f"{seconds:.2f} s"
