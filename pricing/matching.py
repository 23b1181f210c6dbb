"""Which mapping, SKU rule and contract a row of usage meets: patterns and dates as joins of small frames.

Of mappings the most specific wins: one that names the cluster before one for any cluster, then one that names the
account, then one that names the user. So a mapping of account `grp_ml` for any user yields to one of `sl_bob` within
`grp_ml`, and any mapping of `hpc1` goes before those of cluster `*`. Two of equal rank name the same three things and
are told apart by their days. Of SKU rules the first in order wins.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pricing.catalog import ANY_CONTRACT, Catalog

ANY = "*"
WHO = ("cluster", "account", "user")
WHAT = ("cluster", "partition", "qos", "resource")

_MAPPING_SCHEMA = {
    **dict.fromkeys(WHO, pl.String),
    "rank": pl.Int64,
    "customer": pl.String,
    "project": pl.String,
    "zone": pl.String,
    "first": pl.Date,
    "last": pl.Date,
}
_RULE_SCHEMA = {**dict.fromkeys((*WHAT, "family"), pl.String), "order": pl.Int64, "sku": pl.String}
_CONTRACT_SCHEMA = {
    **dict.fromkeys(("customer", "project", "contract"), pl.String),
    "first": pl.Date,
    "last": pl.Date,
}


def fitting(keys: pl.DataFrame, patterns: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Join each key with every pattern that fits it; `*` in a pattern fits any value of that column."""
    others = [column for column in patterns.columns if column not in columns]
    found = [keys.clear().join(patterns.clear(), on=list(columns))]
    wild = [f"wild_{column}" for column in columns]
    marked = patterns.with_columns((pl.col(c) == ANY).alias(w) for c, w in zip(columns, wild, strict=True))
    for shape, group in marked.partition_by(wild, as_dict=True).items():
        exact = [column for column, is_wild in zip(columns, shape, strict=True) if not is_wild]
        right = group.select(*exact, *others)
        found.append(keys.join(right, on=exact) if exact else keys.join(right, how="cross"))
    return pl.concat([part.select(*keys.columns, *others) for part in found])


def local_days(starts: pl.Series, zones: Sequence[str]) -> pl.DataFrame:
    """Return the local day of each span's start in each zone, as columns `zone`, `span_start` and `day`."""
    spans = pl.DataFrame({"span_start": starts.unique()})
    in_zones = [
        spans.select(
            pl.lit(zone).alias("zone"),
            "span_start",
            pl.col("span_start").dt.convert_time_zone(zone).dt.date().alias("day"),
        )
        for zone in sorted(set(zones))
    ]
    return pl.concat([pl.DataFrame(schema={"zone": pl.String, **spans.schema, "day": pl.Date}), *in_zones])


def with_owner(rollup: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Add `customer`, `project` and `zone` (null where no mapping fits), keeping rows and their order."""
    keys = rollup.select(*WHO, "span_start").unique()
    mappings = _mapping_frame(catalog)
    candidates = fitting(keys.select(WHO).unique(), mappings, WHO)
    days = local_days(keys["span_start"], mappings["zone"].unique().to_list())
    owners = (
        keys.join(candidates, on=list(WHO))
        .join(days, on=["zone", "span_start"])
        .filter(pl.col("day").is_between("first", "last"))
        .sort("rank", descending=True)
        .unique([*WHO, "span_start"], keep="first", maintain_order=True)
        .select(*WHO, "span_start", "customer", "project", "zone")
    )
    return rollup.join(owners, on=[*WHO, "span_start"], how="left", maintain_order="left")


def _mapping_frame(catalog: Catalog) -> pl.DataFrame:
    rows = []
    for mapping in catalog.mappings.values():
        names = (mapping.cluster, mapping.account, mapping.user)
        rank = sum(weight for weight, name in zip((4, 2, 1), names, strict=True) if name != ANY)
        customer, project = mapping.customer_and_project
        zone = catalog.customer_zones.get(customer, catalog.zone_name)
        rows.append((*names, rank, customer, project, zone, mapping.first, mapping.last))
    return pl.DataFrame(rows, schema=_MAPPING_SCHEMA, orient="row")


def with_sku(rollup: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Add `sku` ("" where included in what is charged otherwise, null where no rule fits), keeping rows and order."""
    rows = [
        (rule.cluster, rule.partition, rule.qos, *_resource_and_family(rule.resource), rule.order, rule.sku or "")
        for rule in catalog.rules
    ]
    rules = pl.DataFrame(rows, schema=_RULE_SCHEMA, orient="row")
    family = pl.col("resource").str.extract(r"^([^:]+:)").fill_null("") + ANY
    keys = rollup.select(WHAT).unique().with_columns(family.alias("family"))
    first = fitting(keys, rules, (*WHAT, "family")).sort("order").unique(WHAT, keep="first", maintain_order=True)
    return rollup.join(first.select(*WHAT, "sku"), on=list(WHAT), how="left", maintain_order="left")


def _resource_and_family(resource: str) -> tuple[str, str]:
    """Split a rule's resource into an exact name and a family such as `card:*`; the other of the two is any."""
    return (ANY, resource) if resource.endswith(":*") else (resource, ANY)


def with_contract(rows: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Add `contract`, the one in force on `day` for customer and project; null where there is none."""
    terms = [
        (contract.customer, project, contract.number, contract.valid_from, contract.last_day)
        for contract in catalog.contracts.values()
        for project in (contract.projects or (ANY,))
    ]
    contracts = pl.DataFrame(terms, schema=_CONTRACT_SCHEMA, orient="row").with_columns(
        (pl.col("project") == ANY).alias("for_the_rest")
    )
    keys = rows.select("customer", "project", "day").unique().drop_nulls()
    in_force = (
        fitting(keys, contracts, ("customer", "project"))
        .filter(pl.col("day").is_between("first", "last"))
        .sort("for_the_rest", "contract")
        .unique(keys.columns, keep="first", maintain_order=True)
        .select(*keys.columns, "contract")
    )
    return rows.join(in_force, on=keys.columns, how="left", maintain_order="left")


def with_first_price(rows: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Add `priced_from`, the first day on which contract or price book has a price; null where none ever does."""
    first = [(owner, sku, history[0].effective_from) for (owner, sku), history in catalog.price_histories.items()]
    prices = pl.DataFrame(first, schema={"contract": pl.String, "sku": pl.String, "own": pl.Date}, orient="row")
    book = prices.filter(pl.col("contract") == ANY_CONTRACT).select("sku", book="own")
    return (
        rows.join(prices, on=["contract", "sku"], how="left", maintain_order="left")
        .join(book, on="sku", how="left", maintain_order="left")
        .with_columns(pl.min_horizontal("own", "book").alias("priced_from"))
        .drop("own", "book")
    )


def with_cpus_per_core(rows: pl.DataFrame, catalog: Catalog) -> pl.DataFrame:
    """Add `cpus_per_core` of the cluster on the day; a cluster that nobody described counts cores."""
    keys = [
        (name, entry.effective_from, entry.cpus)
        for name, cluster in sorted(catalog.clusters.items())
        for entry in cluster.cpus_per_core
    ]
    schema = {"cluster": pl.String, "from": pl.Date, "cpus_per_core": pl.Int64}
    dated = pl.DataFrame(keys, schema=schema, orient="row")
    days = rows.select("cluster", "day").unique()
    in_force = (
        days.join(dated, on="cluster")
        .filter(pl.col("from") <= pl.col("day"))
        .sort("from", descending=True)
        .unique(["cluster", "day"], keep="first", maintain_order=True)
        .drop("from")
    )
    return rows.join(in_force, on=["cluster", "day"], how="left", maintain_order="left").with_columns(
        pl.col("cpus_per_core").fill_null(1)
    )
