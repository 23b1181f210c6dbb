"""Who pays what in the made-up month: 40 SKUs, 3,000 accounts of 1,200 customers. One price each, no tiers or packs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

from benchmarks.sample_month import ACCOUNTS, CARD_MODELS, CLUSTERS, CUSTOMERS, partitions_of
from pricing.catalog import Catalog
from pricing.kinds import FACT_KINDS

FIRST_DAY, LAST_DAY = date(2026, 1, 1), date(2026, 12, 31)
MONTH = "2026-11"
ZONE = "Asia/Shanghai"


def customer_of(account: int) -> int:
    """Return whose account it is."""
    return account % CUSTOMERS


def skus() -> Iterator[tuple[str, str, str, Decimal]]:
    """Return cluster, partition, SKU and price per core- or card-hour."""
    for cluster in range(CLUSTERS):
        for place, partition in enumerate(partitions_of(cluster)):
            cents = 900 + 13 * cluster + place if partition.startswith("gpu") else 9 + cluster + 3 * place
            yield f"c{cluster:02}", partition, f"c{cluster:02}-{partition}", Decimal(cents) / 100


def model_of(cluster: int) -> str:
    """Return the model of a cluster's cards."""
    return CARD_MODELS[cluster % len(CARD_MODELS)]


def catalog() -> Catalog:
    """Return the configuration that the month is charged by."""
    customers = {f"u{number:04}": _customer(number) for number in range(CUSTOMERS)}
    mappings = [
        {"cluster": "*", "account": f"grp_{number:04}", "project": f"u{customer_of(number):04}/p{number // CUSTOMERS}"}
        for number in range(ACCOUNTS)
    ]
    facts: dict[str, list[dict[str, Any]]] = {
        "operator": [{"id": "op", "name": "Operator", "billing_timezone": ZONE}],
        "cluster": [
            {"name": f"c{c:02}", "partitions": partitions_of(c), "cpus_per_core": [{"cpus": 1}]}
            for c in range(CLUSTERS)
        ],
        "customer": list(customers.values()),
        "contract": [_contract(number) for number in range(CUSTOMERS)],
        "mapping": mappings,
        "sku": [_sku(partition, sku) for _, partition, sku, _ in skus()],
        "sku_rule": list(_rules()),
        "price": [
            {"sku": sku, "effective_from": FIRST_DAY.isoformat(), "unit_price": str(price)} for *_, sku, price in skus()
        ],
    }
    return Catalog.from_facts({name: _by_key(name, bodies) for name, bodies in facts.items()})


def _by_key(name: str, bodies: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kind = FACT_KINDS[name]
    return {kind.key(kind.model.model_validate(body)): body for body in bodies}


def _customer(number: int) -> dict[str, Any]:
    projects = [{"id": f"p{place}", "name": f"Project {place}"} for place in range(-(-ACCOUNTS // CUSTOMERS))]
    return {"id": f"u{number:04}", "name": f"University {number}", "kind": "university", "projects": projects}


def _contract(number: int) -> dict[str, Any]:
    days = {name: FIRST_DAY.isoformat() for name in ("signed_on", "valid_from")} | {"last_day": LAST_DAY.isoformat()}
    return {"number": f"HT-{number}", "customer": f"u{number:04}", "billing": "prepaid", **days}


def _sku(partition: str, sku: str) -> dict[str, Any]:
    unit = "card-hour" if partition.startswith("gpu") else "core-hour"
    return {"id": sku, "product": "general-hpc", "name": sku, "unit": unit}


def _rules() -> Iterator[dict[str, Any]]:
    for order, (cluster, partition, sku, _) in enumerate(skus(), start=1):
        resource = "card:*" if partition.startswith("gpu") else "cpu"
        yield {"order": order, "cluster": cluster, "partition": partition, "resource": resource, "sku": sku}
    yield {"order": 1000, "resource": "*", "included": True}
