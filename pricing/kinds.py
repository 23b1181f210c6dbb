"""The tables that pricing and what lies below it own, as kinds of facts."""

from __future__ import annotations

from operator import attrgetter

from metering.clusters import Cluster
from metering.plan import Measure
from pricing.models import (
    Contract,
    Customer,
    Grant,
    Lease,
    Mapping,
    OneOffCharge,
    Operator,
    Pack,
    PriceChange,
    Sku,
    SkuRule,
    WriteOff,
)
from pricing.toml_files import Kind

_KEY = attrgetter("fact_key")
_NAME = attrgetter("name")

# By the table's name in TOML.
KINDS = {
    kind.table: kind
    for kind in (
        Kind("operator", "operator", Operator, _KEY, single=True),
        Kind("cluster", "clusters", Cluster, _NAME),
        Kind("customer", "customers", Customer, _KEY),
        Kind("contract", "contracts", Contract, _KEY),
        Kind("mapping", "mappings", Mapping, _KEY),
        Kind("measure", "measures", Measure, _NAME),
        Kind("sku", "skus", Sku, _KEY),
        Kind("sku_rule", "sku_rules", SkuRule, _KEY),
        Kind("price", "prices", PriceChange, _KEY),
        Kind("pack", "packs", Pack, _KEY),
        Kind("lease", "leases", Lease, _KEY),
        Kind("one_off_charge", "one_off_charges", OneOffCharge, _KEY),
        Kind("grant", "grants", Grant, _KEY),
    )
}

# Recorded by a person's decision about one exception, never written in a file.
WRITE_OFF = Kind("write_off", "write_offs", WriteOff, _KEY)

FACT_KINDS = {kind.name: kind for kind in (*KINDS.values(), WRITE_OFF)}
