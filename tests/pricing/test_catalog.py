"""Stories of the configuration as a whole: what it answers, and what it refuses to be ambiguous about."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest

from metering.plan import RollupPlan
from pricing.catalog import Catalog, FactError, PriceNotFoundError
from pricing.checks import check

Build = Callable[[str], Catalog]


def test_a_sound_configuration_has_no_problems(shop: Catalog) -> None:
    assert check(shop) == []
    assert check(Catalog()) == []


def test_the_contracts_own_price_goes_before_the_book(catalog_of: Build, shop_toml: str) -> None:
    own = """
[[contracts.prices]]
sku = "core-hour"
effective_from = 2026-03-01
unit_price = 0.07
"""
    text = shop_toml.replace('credit_limit = "200000.00"\npayment_days = 30\n', f'credit_limit = "200000.00"\n{own}')
    catalog = catalog_of(text)

    def price(day: date) -> tuple[str, Decimal | None]:
        found = catalog.price_on("core-hour", "HT-2", day)
        return found.sku_price_id, found.change.unit_price

    assert price(date(2026, 2, 28)) == ("book:core-hour:2026-01-01", Decimal("0.08"))
    assert price(date(2026, 3, 1)) == ("contract:HT-2:core-hour:2026-03-01", Decimal("0.07"))
    assert catalog.price_on("core-hour", "HT-1", date(2026, 3, 1)).sku_price_id == "book:core-hour:2026-01-01"


def test_a_day_before_the_first_price_is_refused_not_given_away(shop: Catalog) -> None:
    with pytest.raises(PriceNotFoundError, match="no price for 'a100-hour' was in force on 2026-11-09"):
        shop.price_on("a100-hour", "HT-1", date(2026, 11, 9))


def test_contracts_of_projects_go_before_the_one_for_the_rest(catalog_of: Build, shop_toml: str) -> None:
    catalog = catalog_of(f"""{shop_toml}
[[contracts]]
number = "HT-0"
customer = "u-north"
signed_on = 2026-01-05
valid_from = 2026-06-01
last_day = 2026-12-31
billing = "credit_line"
credit_limit = 1
projects = ["astro"]
""")
    assert check(catalog) == []
    numbers = [
        contract.number if (contract := catalog.contract_on("u-north", project, date(2026, month, 1))) else None
        for project, month in (("condmat", 6), ("astro", 5), ("astro", 6))
    ]
    assert numbers == ["HT-1", "HT-1", "HT-0"]
    assert catalog.contract_on("u-north", "astro", date(2027, 1, 1)) is None


def test_the_rollup_is_cut_where_any_contract_needs_a_day(catalog_of: Build, shop_toml: str) -> None:
    text = shop_toml.replace('billing = "credit_line"', 'billing = "credit_line"\ntimezone = "Europe/Berlin"')
    catalog = catalog_of(text)
    plan = catalog.rollup_plan(["UTC"])
    assert plan.zones == ("Asia/Shanghai", "Europe/Berlin", "UTC")
    assert [measure.name for measure in plan.measures] == ["core_without_cards"]
    assert catalog.zone("acme").key == "Europe/Berlin"
    assert catalog.zone("u-north").key == "Asia/Shanghai"
    assert Catalog().rollup_plan() == RollupPlan(zones=("Asia/Shanghai",))


def test_tax_is_the_skus_own_else_the_operators(shop: Catalog) -> None:
    assert [shop.tax_rate(sku) for sku in ("core-hour", "a100-hour")] == [Fraction(6, 100), Fraction(13, 100)]


def test_a_recorded_fact_that_cannot_be_read_is_named() -> None:
    with pytest.raises(FactError, match="the recorded sku 'x' cannot be read"):
        Catalog.from_facts({"sku": {"x": {"id": "x"}}, "supplier": {"s": {"left": "alone"}}})


CONTRACT = """
[[contracts]]
number = "HT-9"
customer = "{customer}"
signed_on = 2026-01-05
valid_from = {first}
last_day = 2027-12-31
billing = "prepaid"
timezone = "{zone}"
"""
PURCHASE = """
customer = "u-north"
contract = "{contract}"
sku = "{sku}"
"""
PACK = (
    'bought_on = 2026-11-01\nvalid_from = 2026-11-01\nlast_day = 2026-12-31\nid = "p"\nprice = {price}\nquantity = 1\n'
)
LEASE = 'id = "l"\nquantity = 1\nvalid_from = 2026-11-01\nlast_day = 2026-12-31\nproject = "{project}"\ncluster = "c"\n'
MAPPING = '[[mappings]]\ncluster = "hpc1"\naccount = "{account}"\nproject = "{project}"\n'
SKU = '[[skus]]\nid = "{id}"\nproduct = "service"\nname = "n"\nunit = "{unit}"\n'
PRICE = '[[prices]]\nsku = "{sku}"\neffective_from = 2026-11-02\n{price}\n'
MONTHLY = SKU.format(id="lease", unit="card-month")
TICKET = SKU.format(id="ticket", unit="piece")
RULE = '[[sku_rules]]\norder = 99\nresource = "{resource}"\nsku = "{sku}"\n'


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            CONTRACT.format(customer="nobody", first="2026-01-01", zone="UTC"),
            "[contracts] HT-9 customer = nobody: there is no customer 'nobody'; known are acme, u-north",
        ),
        (
            CONTRACT.format(customer="acme", first="2026-12-31", zone="Asia/Shanghai"),
            (
                "[contracts] HT-9 valid_from = 2026-12-31: overlaps HT-2 of the same customer from 2026-12-31 to "
                "2026-12-31, so usage of those days could stand under both; end one earlier, or give each its own "
                "projects"
            ),
        ),
        (
            CONTRACT.format(customer="acme", first="2027-01-01", zone="UTC"),
            (
                "[contracts] HT-9 timezone = UTC: HT-2 of the same customer says Asia/Shanghai; contracts of one "
                "customer share a zone"
            ),
        ),
        (
            MAPPING.format(account="x", project="acme/no"),
            "[mappings] hpc1/x/*@ project = acme/no: there is no project 'no'; known are rd of acme",
        ),
        (
            f"{MAPPING.format(account='grp_condmat', project='acme/rd')}valid_from = 2026-11-05",
            (
                "[mappings] hpc1/grp_condmat/*@2026-11-05 valid_from = 2026-11-05: is as specific as "
                "hpc1/grp_condmat/*@ and both hold on 2026-11-05; give the earlier one a last_day"
            ),
        ),
        (
            RULE.format(resource="card:h100", sku="h100-hour"),
            "[sku_rules] 99 sku = h100-hour: there is no SKU 'h100-hour'; known are a100-hour, core-hour",
        ),
        (
            RULE.format(resource="measure:max_core", sku="core-hour"),
            "[sku_rules] 99 resource = measure:max_core: there is no measure 'max_core'; known are core_without_cards",
        ),
        (
            RULE.format(resource="card:*", sku="core-hour"),
            "[sku_rules] 99 sku = core-hour: card:* is counted in card-hour, but this SKU is sold in core-hour",
        ),
        (
            PRICE.format(sku="core-houre", price="unit_price = 1"),
            (
                "[prices] core-houre@2026-11-02 sku = core-houre: there is no SKU 'core-houre'; known are a100-hour, "
                "core-hour"
            ),
        ),
        (
            MONTHLY + PRICE.format(sku="lease", price="tiers = [{ unit_price = 1 }]"),
            "[prices] lease@2026-11-02 tiers: lease is leased by the card-month, which has one unit price and no tiers",
        ),
        (
            f"[[packs]]{PURCHASE.format(contract='HT-2', sku='core-hour')}{PACK.format(price=1)}",
            "[packs] p contract = HT-2: is a contract of acme, not of u-north",
        ),
        (
            f"[[packs]]{PURCHASE.format(contract='HT-1', sku='core-hour')}{PACK.format(price=1.005)}",
            "[packs] p price = 1.005: '1.005' has more decimals than CNY has (2)",
        ),
        (
            f"{MONTHLY}[[packs]]{PURCHASE.format(contract='HT-1', sku='lease')}{PACK.format(price=1)}",
            "[packs] p sku = lease: is leased by the card-month; a pack holds what is charged by use",
        ),
        (
            f"{MONTHLY}[[leases]]{PURCHASE.format(contract='HT-1', sku='lease')}{LEASE.format(project='condmat')}"
            + PRICE.format(sku="lease", price="unit_price = 1"),
            "[leases] l sku = lease: no price for 'lease' was in force on 2026-11-01; add one under [[prices]]",
        ),
        (
            f"[[leases]]{PURCHASE.format(contract='HT-1', sku='core-hour')}{LEASE.format(project='condmat')}",
            "[leases] l sku = core-hour: is sold in core-hour; here a SKU in card-month or node-month is needed",
        ),
        (
            f'{TICKET}[[one_off_charges]]\nid = "t"\non = 2027-01-01{PURCHASE.format(contract="HT-1", sku="ticket")}'
            + PRICE.format(sku="ticket", price="unit_price = 1"),
            "[one_off_charges] t contract = HT-1: runs from 2026-01-01 to 2026-12-31, not on 2027-01-01",
        ),
        (
            f'{TICKET}[[one_off_charges]]\nid = "t"\non = 2026-12-01{PURCHASE.format(contract="HT-1", sku="ticket")}'
            + PRICE.format(sku="ticket", price="tiers = [{ unit_price = 1 }]"),
            "[one_off_charges] t sku = ticket: has tiers from 2026-11-02 on; what is bought needs one unit price",
        ),
        (
            '[[clusters]]\nname = "odd"\ncpus_per_core = [{ cpus = 3 }]\n',
            "[clusters] odd cpus_per_core = 3: CPUs per core must divide 1000, such as 1, 2 or 4",
        ),
        (
            (
                '[[grants]]\nid = "g"\ncustomer = "acme"\ncontract = "HT-1"\nface_value = 5\ngranted_on = 2026-11-02\n'
                'last_day = 2026-11-03\nreason = "trial"\n'
            ),
            "[grants] g contract = HT-1: is a contract of u-north, not of acme",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(catalog_of: Build, shop_toml: str, more: str, expected: str) -> None:
    assert [str(problem) for problem in check(catalog_of(f"{shop_toml}\n{more}"))] == [expected]


def test_prices_without_an_operator_are_refused(catalog_of: Build, shop_toml: str) -> None:
    _, _, without = shop_toml.partition("[[clusters]]")
    problems = check(catalog_of(f"[[clusters]]{without}"))
    assert [problem.table for problem in problems] == ["operator"]


def test_a_book_of_ten_thousand_prices_is_read_and_checked_in_reasonable_time(
    catalog_of: Build, shop_toml: str
) -> None:
    started = time.perf_counter()
    skus = "".join(SKU.format(id=f"s{i}", unit="card-hour") for i in range(100))
    prices = "".join(
        f'[[prices]]\nsku = "s{i % 100}"\neffective_from = 20{i // 100:02d}-01-01\nunit_price = 0.{i + 1}\n'
        for i in range(10_000)
    )
    catalog = catalog_of(f"{shop_toml}{skus}{prices}")
    assert check(catalog) == []
    assert catalog.price_on("s7", "", date(2050, 6, 1)).change.unit_price == Decimal("0.5008")
    assert time.perf_counter() - started < 10
