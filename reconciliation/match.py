"""The three-way match: metered × contract price × billed, by cluster, queue, login and item; every cent explained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import polars as pl

from base.money import included_tax, minor_digits, to_minor
from base.period import parse_month
from metering.clusters import Cluster
from reconciliation.compare import Group, differences
from reconciliation.contract import FIXED_ITEM, FIXED_UNIT, SupplierContract
from reconciliation.discrepancy import KINDS, Discrepancy, Kind
from reconciliation.metered import MatchKey, MeteredPart, UnpricedUsage, metered_parts
from reconciliation.supplier_bill import SupplierCharge
from reconciliation.wording import unit_zh


class UnexplainedError(ArithmeticError):
    """Cents of a bill are left that no difference explains: a fault of the match itself."""


@dataclass(frozen=True)
class MatchRow:
    """One key: what was metered, what it costs by contract, what was billed."""

    key: MatchKey
    unit: str
    metered_quantity: Fraction
    contract_minor: int  # gross
    billed_quantity: Fraction
    billed_minor: int  # gross, repeats included
    named_minor: int  # what its named differences add to the bill
    without_bill_minor: int  # contract amount that needs no bill, or whose bill has not come
    kinds: tuple[Kind, ...]

    @property
    def difference_minor(self) -> int:
        """What the bill asks for beyond the contract."""
        return self.billed_minor - self.contract_minor

    @property
    def rest_minor(self) -> int:
        """The part of the difference that is taken as agreement."""
        return self.difference_minor + self.without_bill_minor - self.named_minor


@dataclass(frozen=True)
class ContractCost:
    """What a contract costs in the month by our own figures: metered usage at its prices, or the monthly amount."""

    contract: str
    supplier: str
    cluster: str
    billing: str
    gross_minor: int
    tax_rate: Fraction  # input VAT, included

    @property
    def tax_minor(self) -> int:
        """The input VAT inside."""
        return included_tax(self.gross_minor, self.tax_rate)

    @property
    def net_minor(self) -> int:
        """The cost without input VAT."""
        return self.gross_minor - self.tax_minor


@dataclass(frozen=True)
class MatchTotals:
    """The bill explained: billed = contract − without a bill + every kind of difference + what is within tolerance."""

    contract_minor: int
    billed_minor: int
    named_minor: Mapping[Kind, int]  # every kind, 0 where there is none
    rest_minor: int
    without_bill_minor: int
    disputed_minor: int  # what the bill asks for too much: the named differences above zero


@dataclass(frozen=True)
class MatchResult:
    """What came of comparing a supplier's bill of a month with contract and usage."""

    month: str
    currency: str
    has_bill: bool
    rows: tuple[MatchRow, ...]
    discrepancies: tuple[Discrepancy, ...]
    totals: MatchTotals
    costs: tuple[ContractCost, ...]
    unpriced: tuple[UnpricedUsage, ...]

    @property
    def agrees(self) -> bool:
        """Whether there is nothing to dispute, and no usage without a contract price."""
        return not self.discrepancies and not self.unpriced


@dataclass(frozen=True)
class ItemRow:
    """A month's match of one item on one cluster, all queues and logins together."""

    cluster: str
    item: str
    unit: str
    month: str
    metered_quantity: Fraction
    contract_minor: int
    billed_quantity: Fraction
    billed_minor: int
    named_minor: int
    rest_minor: int
    without_bill_minor: int
    discrepancies: int


def match(
    metered: pl.DataFrame,
    contracts: Sequence[SupplierContract],
    bill_lines: Sequence[SupplierCharge] | None,
    clusters: Mapping[str, Cluster],
    *,
    month: str,
    currency: str,
) -> MatchResult:
    """Return how a supplier's bill of a month compares with its contracts and with what was metered.

    `metered` is the rollup (METERED_SCHEMA; it may hold more columns, clusters and days: each contract takes the month
    as its own zone reckons it). `bill_lines` is None where no bill has come: then nothing is disputed.
    """
    in_force = sorted(
        (c for c in contracts if c.days_in(parse_month(month)) is not None), key=lambda c: (c.valid_from, c.number)
    )
    parts: list[MeteredPart] = []
    unpriced: list[UnpricedUsage] = []
    costs: list[ContractCost] = []
    for contract in in_force:
        own, missing = _parts_of(contract, metered, clusters, month=month, currency=currency)
        parts += own
        unpriced += missing
        costs.append(_cost(contract, own, currency))
    groups = _groups(in_force, parts, bill_lines or (), month=month, currency=currency)
    compared = [_compare(group, has_bill=bill_lines is not None) for group in groups]
    rows = tuple(row for row, _ in compared)
    discrepancies = tuple(found for _, of_key in compared for found in of_key)
    totals = _totals(rows, discrepancies, bill_lines or ())
    return MatchResult(
        month, currency, bill_lines is not None, rows, discrepancies, totals, tuple(costs), tuple(unpriced)
    )


def by_item(result: MatchResult) -> tuple[ItemRow, ...]:
    """Return the match by cluster and item for the month."""
    grouped: dict[tuple[str, str, str], list[MatchRow]] = defaultdict(list)
    for row in result.rows:
        grouped[row.key.cluster, row.key.item, row.unit].append(row)
    return tuple(
        ItemRow(
            cluster=cluster,
            item=item,
            unit=unit,
            month=result.month,
            metered_quantity=sum((row.metered_quantity for row in rows), start=Fraction(0)),
            contract_minor=sum(row.contract_minor for row in rows),
            billed_quantity=sum((row.billed_quantity for row in rows), start=Fraction(0)),
            billed_minor=sum(row.billed_minor for row in rows),
            named_minor=sum(row.named_minor for row in rows),
            rest_minor=sum(row.rest_minor for row in rows),
            without_bill_minor=sum(row.without_bill_minor for row in rows),
            discrepancies=sum(len(row.kinds) for row in rows),
        )
        for (cluster, item, unit), rows in sorted(grouped.items())
    )


def _parts_of(
    contract: SupplierContract, metered: pl.DataFrame, clusters: Mapping[str, Cluster], *, month: str, currency: str
) -> tuple[tuple[MeteredPart, ...], tuple[UnpricedUsage, ...]]:
    if contract.billing == "fixed":
        amount = contract.fixed_amount_minor(month, currency)
        key = MatchKey(contract.cluster, "", "", FIXED_ITEM)
        return (_whole_month(key, amount, currency),), ()
    if contract.cluster not in clusters:
        raise LookupError(f"supplier contract {contract.number}: cluster {contract.cluster!r} is not described")
    return metered_parts(metered, contract, clusters[contract.cluster], month)


def _whole_month(key: MatchKey, amount_minor: int, currency: str) -> MeteredPart:
    return MeteredPart(key, FIXED_UNIT, Fraction(amount_minor, 10 ** minor_digits(currency)), Fraction(1))


def _cost(contract: SupplierContract, parts: Sequence[MeteredPart], currency: str) -> ContractCost:
    gross = sum(to_minor(part.quantity * part.unit_price, currency) for part in parts)
    return ContractCost(
        contract.number, contract.supplier, contract.cluster, contract.billing, gross, contract.exact_tax_rate
    )


def _groups(
    contracts: Sequence[SupplierContract],
    parts: Sequence[MeteredPart],
    lines: Sequence[SupplierCharge],
    *,
    month: str,
    currency: str,
) -> tuple[Group, ...]:
    """Bring together what is compared: parts and lines of one key and unit."""
    fixed = {contract.cluster for contract in contracts if contract.billing == "fixed"}
    parts_of: dict[tuple[MatchKey, str], list[MeteredPart]] = defaultdict(list)
    lines_of: dict[tuple[MatchKey, str], list[SupplierCharge]] = defaultdict(list)
    for part in parts:
        parts_of[part.key, part.unit].append(part)
    for line in lines:
        lines_of[_place_of(line, fixed)].append(line)
    groups = []
    for key, unit in sorted({*parts_of, *lines_of}):
        contract = _contract_for(key, contracts)
        own = tuple(parts_of[key, unit])
        because, listed = (None, None) if own else _unknown_because(key, unit, contract, month)
        groups.append(Group(key, unit, currency, contract, own, tuple(lines_of[key, unit]), because, listed))
    return tuple(groups)


def _place_of(line: SupplierCharge, fixed_clusters: Collection[str]) -> tuple[MatchKey, str]:
    """Return the key and unit that a line is compared under; a monthly amount has no queue, login or other unit."""
    if line.item == FIXED_ITEM and line.cluster in fixed_clusters:
        return MatchKey(line.cluster, "", "", FIXED_ITEM), FIXED_UNIT
    return MatchKey(line.cluster, line.queue, line.login, line.item), line.unit


def _contract_for(key: MatchKey, contracts: Sequence[SupplierContract]) -> SupplierContract | None:
    """Return the last contract in force for a key's cluster: the one by use, but for a monthly amount."""
    own = [contract for contract in contracts if contract.cluster == key.cluster]
    wanted = "fixed" if key.item == FIXED_ITEM else "by_use"
    return next((c for c in reversed(own) if c.billing == wanted), own[-1] if own else None)


def _unknown_because(
    key: MatchKey, unit: str, contract: SupplierContract | None, month: str
) -> tuple[tuple[str, str], Fraction | None]:
    """Say, in Chinese and English, why nothing on our side answers to a charge; and the item's contract price."""
    days = None if contract is None else contract.days_in(month)
    if contract is None or days is None:
        return ("没有覆盖该集群的合同", f"no contract covers cluster {key.cluster}"), None
    entry = contract.entry_named(key.item, key.queue, days[1])
    if entry is None:
        zh, en = f"合同 {contract.number} 没有该项目", f"contract {contract.number} has no such item for this queue"
        return (zh, en), None
    if entry.unit != unit:
        zh, en = f"合同 {contract.number} 按{unit_zh(entry.unit)}计", f"contract {contract.number} counts {entry.unit}s"
        return (zh, en), Fraction(entry.unit_price)
    return ("该账号在此队列没有计量用量", "nothing was metered for this login on this queue"), Fraction(
        entry.unit_price
    )


def _compare(group: Group, *, has_bill: bool) -> tuple[MatchRow, tuple[Discrepancy, ...]]:
    """Return the row of one key with its named differences."""
    # A monthly amount is owed without a bill; usage waits for the bill where none has come at all.
    needs_no_bill = not group.lines and (not has_bill or group.unit == FIXED_UNIT)
    found = () if needs_no_bill else differences(group)
    row = MatchRow(
        key=group.key,
        unit=group.unit,
        metered_quantity=group.metered,
        contract_minor=group.contract_minor,
        billed_quantity=sum((line.quantity for line in group.lines), start=Fraction(0)),
        billed_minor=sum(line.amount_minor for line in group.lines),
        named_minor=sum(difference.amount_minor for difference in found),
        without_bill_minor=group.contract_minor if needs_no_bill else 0,
        kinds=tuple(difference.kind for difference in found),
    )
    if abs(row.rest_minor) > group.largest_rest_minor:
        raise UnexplainedError(f"{group.key}: {row.rest_minor} minor units of the bill are left unexplained")
    return row, found


def _totals(
    rows: Sequence[MatchRow], discrepancies: Sequence[Discrepancy], lines: Sequence[SupplierCharge]
) -> MatchTotals:
    """Add up the rows; what they explain must be the bill itself, to the cent."""
    named = {kind: sum(d.amount_minor for d in discrepancies if d.kind == kind) for kind in KINDS}
    totals = MatchTotals(
        contract_minor=sum(row.contract_minor for row in rows),
        billed_minor=sum(line.amount_minor for line in lines),
        named_minor=named,
        rest_minor=sum(row.rest_minor for row in rows),
        without_bill_minor=sum(row.without_bill_minor for row in rows),
        disputed_minor=sum(d.amount_minor for d in discrepancies if d.amount_minor > 0),
    )
    explained = totals.contract_minor - totals.without_bill_minor + sum(named.values()) + totals.rest_minor
    if explained != totals.billed_minor:
        raise UnexplainedError(f"{totals.billed_minor - explained} minor units of the bill are left unexplained")
    return totals
