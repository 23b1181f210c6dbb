"""What each cluster earns over what it costs, net of tax, and per hour delivered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from base.money import included_tax, minor_digits
from reconciliation.match import MatchResult

TOTAL = ""  # the cluster of the total row
NO_HOURS = Fraction(0)


@dataclass(frozen=True)
class ClusterHours:
    """What a cluster delivered in the month, exactly."""

    core_hours: Fraction = NO_HOURS
    card_hours: Fraction = NO_HOURS

    def __add__(self, other: ClusterHours) -> ClusterHours:
        return ClusterHours(self.core_hours + other.core_hours, self.card_hours + other.card_hours)


@dataclass(frozen=True)
class MarginRow:
    """Revenue, cost and margin of one cluster; the last row, of cluster "", is the total."""

    cluster: str
    currency: str
    revenue_minor: int  # net of output VAT
    cost_minor: int  # net of input VAT
    hours: ClusterHours

    @property
    def margin_minor(self) -> int:
        """What is left of the revenue."""
        return self.revenue_minor - self.cost_minor

    @property
    def margin_rate(self) -> Fraction | None:
        """Margin as a part of revenue; none without revenue."""
        return Fraction(self.margin_minor, self.revenue_minor) if self.revenue_minor > 0 else None

    @property
    def revenue_per_core_hour(self) -> Fraction | None:
        """All revenue of the cluster over its core-hours, in major units."""
        return self._per(self.revenue_minor, self.hours.core_hours)

    @property
    def cost_per_core_hour(self) -> Fraction | None:
        """All cost of the cluster over its core-hours, in major units."""
        return self._per(self.cost_minor, self.hours.core_hours)

    @property
    def revenue_per_card_hour(self) -> Fraction | None:
        """All revenue of the cluster over its card-hours, in major units."""
        return self._per(self.revenue_minor, self.hours.card_hours)

    @property
    def cost_per_card_hour(self) -> Fraction | None:
        """All cost of the cluster over its card-hours, in major units."""
        return self._per(self.cost_minor, self.hours.card_hours)

    def _per(self, minor: int, hours: Fraction) -> Fraction | None:
        return Fraction(minor, 10 ** minor_digits(self.currency)) / hours if hours else None


def margin_rows(
    revenue_net: Mapping[str, int], cost_net: Mapping[str, int], hours: Mapping[str, ClusterHours], *, currency: str
) -> tuple[MarginRow, ...]:
    """Return the margin of every cluster that earned, cost or delivered something, and their total."""
    names = sorted({*revenue_net, *cost_net, *hours})
    rows = [
        MarginRow(name, currency, revenue_net.get(name, 0), cost_net.get(name, 0), hours.get(name, ClusterHours()))
        for name in names
    ]
    total = MarginRow(
        TOTAL,
        currency,
        sum(row.revenue_minor for row in rows),
        sum(row.cost_minor for row in rows),
        sum((row.hours for row in rows), start=ClusterHours()),
    )
    return (*rows, total)


def cost_by_cluster(results: Sequence[MatchResult]) -> dict[str, int]:
    """Return each cluster's cost net of input VAT: what was metered at contract prices, and monthly amounts.

    Where a bill agrees, the bill is the cost: what the tolerance let pass counts too.
    """
    costs: dict[str, int] = defaultdict(int)
    for result in results:
        for cost in result.costs:
            costs[cost.cluster] += cost.net_minor
        if result.has_bill and result.agrees:
            for cluster, net in _let_pass(result).items():
                costs[cluster] += net
    return dict(sorted(costs.items()))


def _let_pass(result: MatchResult) -> dict[str, int]:
    """Return by cluster what an agreeing bill asks for beyond the contract, net of the input VAT of its contract."""
    rates = {cost.cluster: cost.tax_rate for cost in result.costs}
    rests: dict[str, int] = defaultdict(int)
    for row in result.rows:
        rests[row.key.cluster] += row.rest_minor
    return {cluster: rest - included_tax(rest, rates[cluster]) for cluster, rest in rests.items() if rest}
