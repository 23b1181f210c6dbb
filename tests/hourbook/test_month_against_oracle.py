"""The sample operator's month against an oracle that computes it a second way, from the raw files: to the cent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from base.money import parse_amount
from hourbook.billing_run import Month, run_month
from hourbook.closes import pins_of
from hourbook.database import create_home, read_session
from hourbook.deriving import derive
from hourbook.reading import Reading
from hourbook.receiving import TopUp
from invoices import store as invoices
from invoices.document import DocumentContent
from invoices.month import CustomerMonth
from ledger import store as ledger
from ledger.accounts import AccountKey
from pricing.charges import ChargeLine
from tests.oracles.month_oracle import Expected, ExpectedMonth, Log, expected_month
from tests.oracles.price_oracle import LineKey
from tests.oracles.usage_oracle import read_csv

OPERATOR = Path(__file__).resolve().parents[2] / "fixtures" / "operator"
MONTH = "2026-11"
SHANGHAI = ZoneInfo("Asia/Shanghai")
CLEAN = Path("D9_final_all") / "sacct-epoch-name-last.psv.gz"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class ClosedMonth:
    """The month as the project closed it."""

    customers: Mapping[str, CustomerMonth]
    documents: tuple[DocumentContent, ...]
    movements: Mapping[AccountKey, int]


def logs_of(cluster: str) -> list[Path]:
    """The files of a cluster in the order in which a collector delivers them."""
    if cluster != "hpc1":
        return sorted((OPERATOR / cluster).glob("*.gz"))
    return [*sorted((OPERATOR / cluster).glob("*/sacct.psv.gz")), OPERATOR / cluster / CLEAN]


def given_month() -> Month:
    """What the demo runs on, but for the suppliers."""
    receipts = [
        TopUp(
            row["customer"],
            parse_amount(row["amount"], "CNY"),
            row["reference"],
            date.fromisoformat(row["received_on"]),
            row["contract"],
            row["project"],
        )
        for row in read_csv(OPERATOR / "receipts.csv")
    ]
    logs = [(cluster, logs_of(cluster)) for cluster in ("hpc1", "ai1", "cpu2")]
    return Month(MONTH, [OPERATOR / "facts"], logs, receipts, supplier_bills=())


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClosedMonth]:
    noon = datetime(2026, 12, 1, 10, tzinfo=SHANGHAI)
    home = create_home(tmp_path_factory.mktemp("operator"), noon)
    documents = run_month(home, given_month(), lambda _step, _done, _all: None).closed.documents
    with read_session(home.engine) as session:
        row = invoices.close_of(session, MONTH)
        assert row is not None
        derived = derive(Reading(home, session, pins_of(row), {}), [MONTH])[MONTH]
        movements = ledger.movements(session, kinds=("accrual",), periods=(MONTH,))
    yield ClosedMonth(derived.customers, documents, movements)
    home.close()


@pytest.fixture(scope="module")
def oracle() -> ExpectedMonth:
    logs = [
        Log("hpc1", [OPERATOR / "hpc1" / CLEAN]),
        Log("ai1", logs_of("ai1")),
        Log("cpu2", logs_of("cpu2")),
    ]
    return expected_month(logs, OPERATOR / "facts", OPERATOR / "receipts.csv", MONTH)


def key_of(line: ChargeLine) -> LineKey:
    key = line.key
    return LineKey(key.customer, key.contract, key.sku, key.sku_price_id, key.tier, key.original_month)


def test_nothing_is_left_that_nobody_can_be_charged_for(oracle: ExpectedMonth) -> None:
    assert oracle.unplaced == []
    assert len(oracle.customers) == 40


def test_every_line_has_the_oracles_quantity_and_amount(closed: ClosedMonth, oracle: ExpectedMonth) -> None:
    for name, expected in oracle.customers.items():
        lines = {
            key_of(line): (line.exact_quantity, line.amount_minor, line.tax_rate)
            for line in closed.customers[name].lines
        }
        assert lines == {key: (line.quantity, line.amount, line.tax_rate) for key, line in expected.lines.items()}


def test_every_line_is_split_as_the_oracle_splits_it(closed: ClosedMonth, oracle: ExpectedMonth) -> None:
    for name, expected in oracle.customers.items():
        for line in closed.customers[name].lines:
            splits = [((s.day, s.project, s.user, s.cluster), s.quantity, s.amount_minor) for s in sorted(line.splits)]
            assert splits == [
                (tuple(place), parts, amount) for place, parts, amount in sorted(expected.lines[key_of(line)].parts)
            ]


def test_every_line_is_drawn_from_what_the_oracle_draws_it_from(closed: ClosedMonth, oracle: ExpectedMonth) -> None:
    for name, expected in oracle.customers.items():
        drawn: dict[tuple[str, str, str], int] = defaultdict(int)
        for draw in closed.customers[name].drawdown.draws:
            drawn[draw.charge.line_id, draw.kind, draw.source_id] += draw.amount_minor
        assert drawn == {
            ("|".join(map(str, key)), *source): amount for (key, *source), amount in expected.drawn.items()
        }


def documents_of(closed: ClosedMonth, customer: str, kind: str) -> list[DocumentContent]:
    return [one for one in closed.documents if one.customer.id == customer and one.kind == kind]


def test_every_document_has_the_oracles_total_and_tax(closed: ClosedMonth, oracle: ExpectedMonth) -> None:
    for name, expected in oracle.customers.items():
        bills, statements = (documents_of(closed, name, kind) for kind in ("invoice", "statement"))
        assert sum(one.total_minor for one in bills) == expected.invoice_total
        assert sum(one.tax_minor for one in bills) == expected.invoice_tax
        assert sum(one.total_minor for one in statements) == expected.statement_total
        assert sum(one.tax_minor for one in statements) == expected.statement_tax


def test_every_line_of_every_document_shows_what_was_drawn_there(closed: ClosedMonth, oracle: ExpectedMonth) -> None:
    for document in closed.documents:
        shown = {(line.line_id): line.amount_minor for line in document.lines if line.amount_minor}
        assert shown == on_document(oracle.customers[document.customer.id], document.kind)


def on_document(expected: Expected, kind: str) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for (key, source, _), amount in expected.drawn.items():
        if (source == "credit") == (kind == "invoice"):
            sums["|".join(map(str, key))] += amount
    return sums


def test_every_statement_closes_with_the_oracles_balance_and_arrears(
    closed: ClosedMonth, oracle: ExpectedMonth
) -> None:
    for document in closed.documents:
        if document.wallet is not None:
            expected = oracle.customers[document.customer.id]
            assert document.wallet.closing_minor == expected.wallet_balance
            assert document.wallet.arrears_closing_minor == expected.arrears


def test_the_ledger_moved_as_the_oracle_says_for_every_customer(closed: ClosedMonth, oracle: ExpectedMonth) -> None:
    moved: dict[str, dict[str, int]] = {name: {} for name in oracle.customers}
    income: dict[str, dict[tuple[str, str], int]] = {name: {} for name in oracle.customers}
    for key, amount in closed.movements.items():
        if key.asset != "CNY":
            continue
        own = moved[key.customer]
        own[key.code] = own.get(key.code, 0) + amount
        if key.code == "income:usage":
            sku, _, cluster = key.detail.partition("|")
            income[key.customer][sku, cluster] = -amount
    assert moved == {name: dict(expected.movements) for name, expected in oracle.customers.items()}
    assert income == {name: dict(expected.income) for name, expected in oracle.customers.items()}
