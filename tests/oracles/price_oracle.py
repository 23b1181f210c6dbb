"""What usage costs, from the operator's TOML, computed a second way: standard library only, nothing of the project.

A line is one customer, contract, SKU, price and tier of a month. Its quantity is exact, its amount is rounded once,
half away from zero, and split over days, projects, users and clusters by largest remainder.
"""

from __future__ import annotations

import tomllib
from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from .usage_oracle import Use, local_day, share_out

Table = Mapping[str, Any]
Facts = dict[str, list[dict[str, Any]]]

ANY = "*"
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9999, 12, 31)
MILLI_CARDS = 1000
# An hour is counted in milliseconds; whatever is split is split in these.
PARTS = {"core-hour": 3_600_000, "card-hour": 3_600_000, "node-hour": 3_600_000, "wall-hour": 3_600_000}


class Place(NamedTuple):
    """Where a part of a line was used, in the order in which a month is counted."""

    day: date
    project: str
    user: str
    cluster: str


class LineKey(NamedTuple):
    """What one line is."""

    customer: str
    contract: str
    sku: str
    price: str
    tier: int
    month: str


@dataclass
class Line:
    """A priced quantity with its parts: (where, counted parts of the unit, minor units)."""

    key: LineKey
    tax_rate: Fraction
    quantity: Fraction = Fraction(0)  # in the SKU's unit
    amount: int = 0  # minor units, gross
    parts: list[tuple[Place, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Unplaced:
    """Usage that nobody can be charged for, and why."""

    reason: str
    use: Use


def read_facts(folder: Path) -> Facts:
    """Read every TOML file below a folder into one list of tables per kind, in order of the files' names."""
    facts: Facts = defaultdict(list)
    for path in sorted(folder.rglob("*.toml")):
        for kind, tables in tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal).items():
            facts[kind] += [tables] if isinstance(tables, dict) else tables
    return facts


def exact(value: object) -> Fraction:
    """Read a number of the TOML, bare or quoted, exactly."""
    return Fraction(str(value))


def round_half_away(value: Fraction) -> int:
    """Round to a whole number, halves away from zero."""
    size = abs(value)
    rounded = int(size) + (1 if size - int(size) >= Fraction(1, 2) else 0)
    return rounded if value >= 0 else -rounded


def minor(value: Fraction) -> int:
    """Round an amount in yuan to fen."""
    return round_half_away(value * 100)


def in_force(table: Table, day: date) -> bool:
    """Tell whether an entry with first and last day holds on a day."""
    return bool(table.get("valid_from", FIRST_DAY) <= day <= table.get("last_day", LAST_DAY))


class PriceList:
    """The operator's facts, asked the questions that a line asks."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.operator = facts["operator"][0]
        self._fitting: dict[tuple[str, ...], list[Table]] = {}
        self.clusters = {cluster["name"]: cluster for cluster in facts["clusters"]}
        self.skus = {sku["id"]: sku for sku in facts["skus"]}
        self.rules = sorted(facts["sku_rules"], key=lambda rule: int(rule["order"]))
        self.contracts = {contract["number"]: contract for contract in facts["contracts"]}
        self.home: str = self.operator["billing_timezone"]
        self.zones = {customer["id"]: self.home for customer in facts["customers"]}
        for _, contract in sorted(self.contracts.items()):
            self.zones[contract["customer"]] = contract.get("timezone", self.zones[contract["customer"]])

    def zone(self, customer: str) -> ZoneInfo:
        """Return the zone of a customer's days."""
        return ZoneInfo(self.zones.get(customer, self.home))

    def owner(self, use: Use) -> tuple[str, str] | None:
        """Say whose usage it is, as (customer, project), by the mapping in force that names most."""
        for mapping in self._mappings_of(use.cluster, use.account, use.user):
            customer, _, project = mapping["project"].partition("/")
            if in_force(mapping, local_day(use.day_start, self.zone(customer))):
                return customer, project
        return None

    def _mappings_of(self, *names: str) -> list[Table]:
        """Return the mappings that fit cluster, account and user: naming the cluster goes first, then the account."""
        if names not in self._fitting:
            named = [((m["cluster"], m["account"], m.get("user", ANY)), m) for m in self.facts["mappings"]]
            fitting = [
                (tuple(want != ANY for want in wanted), mapping)
                for wanted, mapping in named
                if all(want in (ANY, name) for want, name in zip(wanted, names, strict=True))
            ]
            self._fitting[names] = [m for _, m in sorted(fitting, key=lambda one: one[0], reverse=True)]
        return self._fitting[names]

    def contract(self, customer: str, project: str, day: date) -> str | None:
        """Return the contract that a project's usage stands under; one that names the project goes first."""
        own = [c for c in self.contracts.values() if c["customer"] == customer and in_force(c, day)]
        fitting = [c for c in own if project in c.get("projects", [project]) or not c.get("projects")]
        ordered = sorted(fitting, key=lambda c: (not c.get("projects"), c["number"]))
        return str(ordered[0]["number"]) if ordered else None

    def sku(self, use: Use) -> str | None:
        """Return the SKU of the first rule that fits; "" where it is included in what is charged otherwise."""
        for rule in self.rules:
            family = rule["resource"].endswith(":*") and use.resource.startswith(rule["resource"][:-1])
            names = ((rule.get(name, ANY), getattr(use, name)) for name in ("cluster", "partition", "qos"))
            if all(want in (ANY, got) for want, got in names) and (family or rule["resource"] == use.resource):
                return "" if rule.get("included") else str(rule["sku"])
        return None

    def price(self, sku: str, contract: str, day: date) -> tuple[str, Table] | None:
        """Return the price of a day: the contract's own, else the price book's; its name says which and since when."""
        own = self.contracts.get(contract, {}).get("prices", [])
        for owner, entries in ((f"contract:{contract}", own), ("book", self.facts["prices"])):
            known = [entry for entry in entries if entry["sku"] == sku and entry["effective_from"] <= day]
            if known:
                entry = max(known, key=lambda entry: entry["effective_from"])
                return f"{owner}:{sku}:{entry['effective_from']}", entry
        return None

    def tax_rate(self, sku: str) -> Fraction:
        """Return the tax rate of a SKU."""
        return exact(self.skus[sku].get("tax_rate", self.operator["tax_rate"]))

    def counted(self, use: Use, sku: str, day: date) -> int:
        """Count usage in the parts of the SKU's unit: milliseconds of an hour, or of a core's hour."""
        if use.resource.startswith("card:"):
            return use.seconds * 1000 // MILLI_CARDS
        per_core = 1
        if self.skus[sku]["unit"] == "core-hour":
            dated = self.clusters.get(use.cluster, {}).get("cpus_per_core", [{"cpus": 1}])
            known = [entry for entry in dated if entry.get("effective_from", FIRST_DAY) <= day]
            per_core = max(known, key=lambda entry: entry.get("effective_from", FIRST_DAY))["cpus"] if known else 1
        return use.seconds * 1000 // per_core


Used = dict[tuple[str, str, Place, str], int]  # by customer, SKU, place and contract: counted parts


def place_usage(uses: Iterable[Use], prices: PriceList, month: str) -> tuple[Used, list[Unplaced]]:
    """Give a month's usage to customers, contracts and SKUs; what cannot be placed is returned with its reason."""
    placed: Used = defaultdict(int)
    unplaced = []
    for use in uses:
        owner = prices.owner(use)
        customer, project = owner or ("", "")
        day = local_day(use.day_start, prices.zone(customer))
        sku = prices.sku(use)
        if f"{day:%Y-%m}" != month:
            continue
        contract = prices.contract(customer, project, day) or ""
        reason = _why_not(use, customer, contract, sku, prices) or _unpriced(sku, contract, day, prices)
        if reason:
            unplaced.append(Unplaced(reason, use))
        elif sku:
            placed[customer, sku, Place(day, project, use.user, use.cluster), contract] += prices.counted(use, sku, day)
    return placed, unplaced


def _why_not(use: Use, customer: str, contract: str, sku: str | None, prices: PriceList) -> str:
    """Say why usage cannot be charged; "" where it can, or is included in what is charged otherwise."""
    listed = prices.clusters.get(use.cluster, {}).get("partitions", [])
    if listed and use.partition not in listed:
        return "unknown_partition"
    if sku == "":
        return ""
    if not customer:
        return "unassigned"
    if not contract:
        return "no_contract"
    return "unmatched" if sku is None else ""


def _unpriced(sku: str | None, contract: str, day: date, prices: PriceList) -> str:
    return "unpriced" if sku and prices.price(sku, contract, day) is None else ""


def usage_lines(placed: Used, prices: PriceList, month: str) -> list[Line]:
    """Price a month's usage: in order of day, project, user and cluster through packs, and the rest through tiers."""
    lines: dict[LineKey, Line] = {}
    by_sku: dict[tuple[str, str], list[tuple[Place, str, int]]] = defaultdict(list)
    for (customer, sku, place, contract), parts in placed.items():
        by_sku[customer, sku].append((place, contract, parts))
    for (customer, sku), used in sorted(by_sku.items()):
        counted, beyond = 0, []
        pots = [_Pot(pack, prices.skus[sku]["unit"]) for pack in _packs(prices, customer, sku)]
        for place, contract, parts in sorted(used):
            rest = parts
            for pot in pots:
                taken, amount = pot.draw(rest, place.day)
                if taken:
                    key = LineKey(customer, pot.pack["contract"], sku, f"pack:{pot.pack['id']}", 0, month)
                    _add(lines, key, prices, (place, taken, amount))
                rest -= taken
            beyond.append((place, contract, rest))
        whole = sum(rest for _, _, rest in beyond)
        for place, contract, rest in beyond:
            for tier, part, name in _tiers(prices, sku, contract, place.day, (counted, rest, whole)):
                _add(lines, LineKey(customer, contract, sku, name, tier, month), prices, (place, part, 0))
            counted += rest
    for line in lines.values():
        _finish(line, prices)
    return list(lines.values())


def _add(lines: dict[LineKey, Line], key: LineKey, prices: PriceList, part: tuple[Place, int, int]) -> None:
    lines.setdefault(key, Line(key, prices.tax_rate(key.sku))).parts.append(part)


def _finish(line: Line, prices: PriceList) -> None:
    """Round a line once and split its amount; a pack's line is worth what its draws released."""
    scale = PARTS[prices.skus[line.key.sku]["unit"]]
    counts = [parts for _, parts, _ in line.parts]
    line.quantity = Fraction(sum(counts), scale)
    if line.key.price.startswith("pack:"):
        line.amount = sum(amount for _, _, amount in line.parts)
        return
    entry = prices.price(line.key.sku, line.key.contract, line.parts[0][0].day)
    if entry is None:
        raise LookupError(line.key)
    table = entry[1]
    unit_price = exact(table["tiers"][line.key.tier - 1]["unit_price"] if line.key.tier else table["unit_price"])
    line.amount = minor(line.quantity * unit_price)
    shares = share_out(line.amount, counts)
    line.parts = [(place, parts, share) for (place, parts, _), share in zip(line.parts, shares, strict=True)]


def _tiers(
    prices: PriceList, sku: str, contract: str, day: date, counts: tuple[int, int, int]
) -> Iterator[tuple[int, int, str]]:
    """Cut a quantity at the bounds of a price's tiers: yield tier (0 for none), counted parts and the price's name.

    Counted parts are given as those of the month before it, its own, and those of the whole month.
    """
    before, parts, whole = counts
    found = prices.price(sku, contract, day)
    if found is None or not parts:
        return
    name, entry = found
    if "tiers" not in entry:
        yield 0, parts, name
        return
    if entry.get("tier_mode") == "volume":
        bounds = [tier["up_to"] * PARTS[prices.skus[sku]["unit"]] for tier in entry["tiers"] if "up_to" in tier]
        yield 1 + sum(bound < whole for bound in bounds), parts, name
        return
    start, end, low = before, before + parts, 0
    for number, tier in enumerate(entry["tiers"], start=1):
        high = tier["up_to"] * PARTS[prices.skus[sku]["unit"]] if "up_to" in tier else end
        inside = min(end, high) - max(start, low)
        if inside > 0:
            yield number, inside, name
        low = max(low, high)


def _packs(prices: PriceList, customer: str, sku: str) -> list[Table]:
    own = [pack for pack in prices.facts["packs"] if pack["customer"] == customer and pack["sku"] == sku]
    return sorted(own, key=lambda pack: (pack["last_day"], pack["bought_on"], pack["id"]))


class _Pot:
    """What a pack has given so far; its first month is the one that is computed."""

    def __init__(self, pack: Table, unit: str) -> None:
        self.pack, self.drawn, self.size = pack, 0, int(exact(pack["quantity"]) * PARTS[unit])

    def draw(self, wanted: int, day: date) -> tuple[int, int]:
        """Take what is left of it, worth price × drawn ÷ size, cumulative."""
        if not in_force(self.pack, day):
            return 0, 0
        taken = min(wanted, self.size - self.drawn)
        price = exact(self.pack["price"])
        before, after = (minor(price * Fraction(drawn, self.size)) for drawn in (self.drawn, self.drawn + taken))
        self.drawn += taken
        return taken, after - before


def purchase_lines(prices: PriceList, month: str) -> list[Line]:
    """Charge leases by the day and one-off charges on their day."""
    lines = []
    first = date.fromisoformat(f"{month}-01")
    days = [first + timedelta(days=offset) for offset in range(monthrange(first.year, first.month)[1])]
    for lease in prices.facts["leases"]:
        held = [day for day in days if in_force(lease, day)]
        if held:
            price = _bought_at(prices, lease, lease["valid_from"])
            # What is due through a day is rounded; a day costs what it adds.
            due = [minor(price * lease["quantity"] * count / len(days)) for count in range(len(held) + 1)]
            key = LineKey(lease["customer"], lease["contract"], lease["sku"], f"lease:{lease['id']}", 0, month)
            line = Line(key, prices.tax_rate(lease["sku"]), Fraction(lease["quantity"]), due[-1])
            where = [Place(day, lease.get("project", ""), "", lease.get("cluster", "")) for day in held]
            line.parts = [(where[i], lease["quantity"], due[i + 1] - due[i]) for i in range(len(held))]
            lines.append(line)
    for charge in prices.facts["one_off_charges"]:
        if charge["on"] in days:
            amount = minor(_bought_at(prices, charge, charge["on"]) * charge["quantity"])
            key = LineKey(charge["customer"], charge["contract"], charge["sku"], f"one-off:{charge['id']}", 0, month)
            line = Line(key, prices.tax_rate(charge["sku"]), Fraction(charge["quantity"]), amount)
            line.parts = [(Place(charge["on"], "", "", ""), charge["quantity"], amount)]
            lines.append(line)
    return lines


def _bought_at(prices: PriceList, bought: Table, day: date) -> Fraction:
    found = prices.price(bought["sku"], bought["contract"], day)
    if found is None:
        raise LookupError(f"{bought['id']}: {bought['sku']} had no price on {day}")
    return exact(found[1]["unit_price"])


def month_lines(uses: Sequence[Use], prices: PriceList, month: str) -> tuple[list[Line], list[Unplaced]]:
    """Return every line of a month, and the usage that stands on none though it should."""
    placed, unplaced = place_usage(uses, prices, month)
    return sorted(
        [*usage_lines(placed, prices, month), *purchase_lines(prices, month)], key=lambda line: line.key
    ), unplaced
