"""Checks of the configuration as a whole: what each entry refers to exists, and nothing has two answers.

Each check goes over the catalog once and yields what is wrong; `check` is the list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from itertools import combinations, pairwise

from pricing.catalog import Catalog
from pricing.models import LEASE_UNITS, MEASURE_PREFIX, Contract, Lease, OneOffCharge, PriceChange, SkuRule
from pricing.problems import Problem

_UNIT_OF_RESOURCE = {"cpu": "core-hour", "node": "node-hour", "wall": "wall-hour"}
_MILLISECONDS = 1000


def check(catalog: Catalog) -> list[Problem]:
    """Return everything that is wrong with the configuration as a whole; none means it can be used."""
    return [problem for one_check in CHECKS for problem in one_check(catalog)]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")  # noqa: PLR2004 - enough to recognise a typing slip
    return f"there is no {what} {name!r}; known are {shown or 'none'}"


def operator_is_there(catalog: Catalog) -> Iterator[Problem]:
    """Whoever sells needs an operator: its currency, tax and zone."""
    sells = catalog.contracts or catalog.skus or catalog.prices
    if sells and catalog.operator is None:
        yield Problem("is missing; contracts and prices need its currency, tax and billing zone", table="operator")


def clusters_can_be_priced(catalog: Catalog) -> Iterator[Problem]:
    """CPUs per core must divide 1,000, or core-hours would not be whole milliseconds."""
    for name, cluster in catalog.clusters.items():
        for entry in cluster.cpus_per_core:
            if _MILLISECONDS % entry.cpus:
                message = "CPUs per core must divide 1000, such as 1, 2 or 4"
                yield Problem(message, "clusters", "cpus_per_core", str(entry.cpus), name)


def contracts_belong_to_customers(catalog: Catalog) -> Iterator[Problem]:
    """A contract's customer and the projects it names exist; its amounts fit the currency."""
    for number, contract in catalog.contracts.items():
        customer = catalog.customers.get(contract.customer)
        if customer is None:
            message = _unknown("customer", contract.customer, catalog.customers)
            yield Problem(message, "contracts", "customer", contract.customer, number)
            continue
        projects = {project.id for project in customer.projects}
        for project in sorted(set(contract.projects) - projects):
            message = f"{_unknown('project', project, projects)} of {contract.customer}"
            yield Problem(message, "contracts", "projects", project, number)
        if contract.credit_limit is not None:
            yield from _amount(catalog, contract.credit_limit, ("contracts", "credit_limit", number))


def contracts_can_be_told_apart(catalog: Catalog) -> Iterator[Problem]:
    """On every day each project's usage stands under one contract."""
    for later, earlier in _pairs_of_one_customer(catalog):
        overlap = _overlap((earlier.valid_from, earlier.last_day), (later.valid_from, later.last_day))
        shared = set(earlier.projects) & set(later.projects)
        if overlap and (shared or not (earlier.projects or later.projects)):
            message = (
                f"overlaps {earlier.number} of the same customer from {overlap[0]} to {overlap[1]}, so usage of those "
                "days could stand under both; end one earlier, or give each its own projects"
            )
            yield Problem(message, "contracts", "valid_from", str(later.valid_from), later.number)


def customers_have_one_zone(catalog: Catalog) -> Iterator[Problem]:
    """Contracts of one customer agree on the zone, or a second would have two days."""
    for later, earlier in _pairs_of_one_customer(catalog):
        zones = [contract.timezone or catalog.zone_name for contract in (earlier, later)]
        if zones[0] != zones[1]:
            message = f"{earlier.number} of the same customer says {zones[0]}; contracts of one customer share a zone"
            yield Problem(message, "contracts", "timezone", zones[1], later.number)


def mappings_lead_somewhere(catalog: Catalog) -> Iterator[Problem]:
    """The project of every mapping exists."""
    for key, mapping in catalog.mappings.items():
        customer, project = mapping.customer_and_project
        known = catalog.customers.get(customer)
        if known is None:
            message = _unknown("customer", customer, catalog.customers)
            yield Problem(message, "mappings", "project", mapping.project, key)
        elif project not in {p.id for p in known.projects}:
            message = f"{_unknown('project', project, (p.id for p in known.projects))} of {customer}"
            yield Problem(message, "mappings", "project", mapping.project, key)


def mappings_have_one_answer(catalog: Catalog) -> Iterator[Problem]:
    """No two mappings of the same cluster, account and user hold on one day."""
    by_pattern = sorted(catalog.mappings.items(), key=lambda m: (m[1].cluster, m[1].account, m[1].user, m[1].first))
    for (earlier_key, earlier), (key, later) in pairwise(by_pattern):
        same = (earlier.cluster, earlier.account, earlier.user) == (later.cluster, later.account, later.user)
        overlap = _overlap((earlier.first, earlier.last), (later.first, later.last))
        if same and overlap:
            message = f"is as specific as {earlier_key} and both hold on {overlap[0]}; give the earlier one a last_day"
            yield Problem(message, "mappings", "valid_from", str(later.valid_from or ""), key)


def rules_name_skus(catalog: Catalog) -> Iterator[Problem]:
    """A rule's SKU and measure exist, and the SKU's unit is what the resource counts."""
    for rule in catalog.rules:
        place = ("sku_rules", "sku", rule.sku or "", rule.fact_key)
        name = rule.resource.removeprefix(MEASURE_PREFIX)
        if rule.resource.startswith(MEASURE_PREFIX) and name not in catalog.measures:
            message = _unknown("measure", name, catalog.measures)
            yield Problem(message, "sku_rules", "resource", rule.resource, rule.fact_key)
        elif rule.sku is not None and rule.sku not in catalog.skus:
            yield Problem(_unknown("SKU", rule.sku, catalog.skus), *place)
        elif rule.sku is not None and catalog.skus[rule.sku].unit != (unit := _unit_of(rule, catalog)):
            message = f"{rule.resource} is counted in {unit}, but this SKU is sold in {catalog.skus[rule.sku].unit}"
            yield Problem(message, *place)


def _unit_of(rule: SkuRule, catalog: Catalog) -> str:
    resource = rule.resource
    if resource.startswith(MEASURE_PREFIX):
        resource = catalog.measures[resource.removeprefix(MEASURE_PREFIX)].quantity
    if resource == "*":
        return "several units; only included = true fits"
    return _UNIT_OF_RESOURCE.get(resource, "card-hour" if resource.startswith("card:") else "piece")


def prices_name_skus(catalog: Catalog) -> Iterator[Problem]:
    """Every price, of the book or of a contract, is of a SKU that is sold; leases have no tiers."""
    for key, change in catalog.prices.items():
        yield from _price(catalog, change, "prices", "", key)
    for number, contract in catalog.contracts.items():
        for index, change in enumerate(contract.prices):
            yield from _price(catalog, change, "contracts", f"prices[{index}].", number)


def _price(catalog: Catalog, change: PriceChange, table: str, prefix: str, entry: str) -> Iterator[Problem]:
    sku = catalog.skus.get(change.sku)
    if sku is None:
        yield Problem(_unknown("SKU", change.sku, catalog.skus), table, f"{prefix}sku", change.sku, entry)
    elif change.tiers and sku.unit in LEASE_UNITS:
        message = f"{change.sku} is leased by the {sku.unit}, which has one unit price and no tiers"
        yield Problem(message, table, f"{prefix}tiers", "", entry)


def purchases_stand_under_contracts(catalog: Catalog) -> Iterator[Problem]:
    """The contract of every pack, lease, one-off charge and grant exists and is its customer's."""
    tables = (
        ("packs", catalog.packs),
        ("leases", catalog.leases),
        ("one_off_charges", catalog.one_offs),
        ("grants", catalog.grants),
    )
    for table, purchases in tables:
        for key, purchase in purchases.items():
            contract = catalog.contracts.get(purchase.contract)
            place = (table, "contract", purchase.contract, key)
            if contract is None:
                yield Problem(_unknown("contract", purchase.contract, catalog.contracts), *place)
            elif contract.customer != purchase.customer:
                yield Problem(f"is a contract of {contract.customer}, not of {purchase.customer}", *place)


def packs_fit(catalog: Catalog) -> Iterator[Problem]:
    """A pack holds a quantity of a SKU that is charged by use, at a price in whole minor units."""
    for key, pack in catalog.packs.items():
        sku = catalog.skus.get(pack.sku)
        if sku is None:
            yield Problem(_unknown("SKU", pack.sku, catalog.skus), "packs", "sku", pack.sku, key)
        elif sku.unit in LEASE_UNITS:
            message = f"is leased by the {sku.unit}; a pack holds what is charged by use"
            yield Problem(message, "packs", "sku", pack.sku, key)
        yield from _amount(catalog, pack.price, ("packs", "price", key))


def grants_fit(catalog: Catalog) -> Iterator[Problem]:
    """A grant's face value is in whole minor units, and it ends after it begins."""
    for key, grant in catalog.grants.items():
        yield from _amount(catalog, grant.face_value, ("grants", "face_value", key))
        if grant.last_day < grant.granted_on:
            message = f"lies before granted_on {grant.granted_on}"
            yield Problem(message, "grants", "last_day", str(grant.last_day), key)


def leases_fit(catalog: Catalog) -> Iterator[Problem]:
    """A lease is of a SKU by the month with a price on its first day, for a project of the customer."""
    for key, lease in catalog.leases.items():
        yield from _purchase_price(catalog, "leases", lease, lease.valid_from, LEASE_UNITS)
        customer = catalog.customers.get(lease.customer)
        projects = [project.id for project in customer.projects] if customer else [lease.project]
        if lease.project not in projects:
            message = f"{_unknown('project', lease.project, projects)} of {lease.customer}"
            yield Problem(message, "leases", "project", lease.project, key)
        contract = catalog.contracts.get(lease.contract)
        if contract and not contract.in_force(lease.valid_from):
            message = f"runs from {contract.valid_from} to {contract.last_day}, not on {lease.valid_from}"
            yield Problem(message, "leases", "contract", lease.contract, key)


def one_offs_fit(catalog: Catalog) -> Iterator[Problem]:
    """A one-off charge is of pieces that have one unit price on its day, which its contract holds."""
    for key, charge in catalog.one_offs.items():
        yield from _purchase_price(catalog, "one_off_charges", charge, charge.on, ("piece",))
        contract = catalog.contracts.get(charge.contract)
        if contract and not contract.in_force(charge.on):
            message = f"runs from {contract.valid_from} to {contract.last_day}, not on {charge.on}"
            yield Problem(message, "one_off_charges", "contract", charge.contract, key)


def _purchase_price(
    catalog: Catalog, table: str, purchase: Lease | OneOffCharge, on: date, units: Sequence[str]
) -> Iterator[Problem]:
    sku, place = catalog.skus.get(purchase.sku), (table, "sku", purchase.sku, purchase.fact_key)
    if sku is None:
        yield Problem(_unknown("SKU", purchase.sku, catalog.skus), *place)
        return
    if sku.unit not in units:
        yield Problem(f"is sold in {sku.unit}; here a SKU in {' or '.join(units)} is needed", *place)
        return
    try:
        change = catalog.price_on(purchase.sku, purchase.contract, on).change
    except LookupError as error:
        yield Problem(str(error), *place)
        return
    if change.unit_price is None:
        yield Problem(f"has tiers from {change.effective_from} on; what is bought needs one unit price", *place)


def _amount(catalog: Catalog, amount: Decimal, place: tuple[str, str, str]) -> Iterator[Problem]:
    table, key, entry = place
    try:
        catalog.minor(amount)
    except (ValueError, OverflowError) as error:
        yield Problem(str(error), table, key, str(amount), entry)


def _pairs_of_one_customer(catalog: Catalog) -> Iterator[tuple[Contract, Contract]]:
    """Yield each two contracts of one customer, the later one first."""
    of_customer: dict[str, list[Contract]] = {}
    for contract in sorted(catalog.contracts.values(), key=lambda c: (c.valid_from, c.number)):
        of_customer.setdefault(contract.customer, []).append(contract)
    for contracts in of_customer.values():
        for earlier, later in combinations(contracts, 2):
            yield later, earlier


def _overlap(one: tuple[date, date], other: tuple[date, date]) -> tuple[date, date] | None:
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return (first, last) if first <= last else None


CHECKS: Sequence[Callable[[Catalog], Iterator[Problem]]] = (
    operator_is_there,
    clusters_can_be_priced,
    contracts_belong_to_customers,
    contracts_can_be_told_apart,
    customers_have_one_zone,
    mappings_lead_somewhere,
    mappings_have_one_answer,
    rules_name_skus,
    prices_name_skus,
    purchases_stand_under_contracts,
    packs_fit,
    grants_fit,
    leases_fit,
    one_offs_fit,
)
