"""What the tests of pricing share: a catalog from TOML as an operator writes it, and frames of usage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pricing.catalog import Catalog
from pricing.kinds import KINDS
from pricing.toml_files import facts_of, read_tables

SHOP = """
[operator]
id = "starlight"
name = "星河超算云"
billing_timezone = "Asia/Shanghai"

[[clusters]]
name = "hpc1"
partitions = ["cpu", "gpu"]
cpus_per_core = [{ cpus = 1 }, { effective_from = 2026-11-16, cpus = 2 }]

[[customers]]
id = "u-north"
name = "北方大学"
kind = "university"
projects = [{ id = "condmat", name = "凝聚态" }, { id = "astro", name = "天文" }]

[[customers]]
id = "acme"
name = "ACME"
kind = "company"
projects = [{ id = "rd", name = "R&D" }]

[[contracts]]
number = "HT-1"
customer = "u-north"
signed_on = 2026-01-05
valid_from = 2026-01-01
last_day = 2026-12-31
billing = "prepaid"

[[contracts]]
number = "HT-2"
customer = "acme"
signed_on = 2026-01-05
valid_from = 2026-01-01
last_day = 2026-12-31
billing = "credit_line"
credit_limit = "200000.00"
payment_days = 30

[[mappings]]
cluster = "hpc1"
account = "grp_condmat"
project = "u-north/condmat"

[[mappings]]
cluster = "hpc1"
account = "grp_condmat"
user = "bob"
project = "u-north/astro"

[[mappings]]
cluster = "*"
account = "acme_rd"
project = "acme/rd"

[[measures]]
name = "core_without_cards"
quantity = "cpu"
when = "no_cards"

[[skus]]
id = "core-hour"
product = "general-hpc"
name = "CPU 核时"
unit = "core-hour"

[[skus]]
id = "a100-hour"
product = "ai-cloud"
name = "A100 卡时"
unit = "card-hour"
tax_rate = 0.13

[[sku_rules]]
order = 10
resource = "measure:core_without_cards"
sku = "core-hour"

[[sku_rules]]
order = 20
resource = "card:a100"
sku = "a100-hour"

[[sku_rules]]
order = 30
resource = "cpu"
included = true

[[sku_rules]]
order = 31
resource = "node"
included = true

[[sku_rules]]
order = 32
resource = "wall"
included = true

[[prices]]
sku = "core-hour"
effective_from = 2026-01-01
unit_price = 0.08

[[prices]]
sku = "a100-hour"
effective_from = 2026-11-10
unit_price = 8
"""


@pytest.fixture
def catalog_of(tmp_path: Path) -> Callable[[str], Catalog]:
    """Build a catalog from TOML, the way `apply` does."""

    def build(text: str) -> Catalog:
        file = tmp_path / "config.toml"
        file.write_text(text, encoding="utf-8")
        entries, problems = read_tables([file], KINDS)
        assert not problems, "\n".join(map(str, problems))
        return Catalog.from_facts(facts_of(entries))

    return build


@pytest.fixture
def shop_toml() -> str:
    """A small operator with two customers, one cluster and two SKUs."""
    return SHOP


@pytest.fixture
def shop(catalog_of: Callable[[str], Catalog]) -> Catalog:
    """The small operator as a catalog."""
    return catalog_of(SHOP)
