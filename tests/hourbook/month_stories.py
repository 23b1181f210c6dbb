"""An operator small enough to compute by hand, for stories of months: two clusters, five customers, a clock to set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from base.money import parse_amount
from hourbook.accruing import accrue_open_months
from hourbook.applying import apply_files
from hourbook.auditing import audit
from hourbook.balances import Balance, balance_of
from hourbook.closing import Closed, CloseRefusedError, close_month
from hourbook.database import create_home, read_session
from hourbook.documents import derived_content, pdf_of, rebuild
from hourbook.exceptions import Decision, resolve_exception
from hourbook.importing import SlurmLog, import_events, import_slurm
from hourbook.receiving import TopUp, receive
from hourbook.settings import Home
from invoices import store as invoices
from invoices.document import DocumentContent, DocumentLine, Wallet, content_hash
from ledger import store as ledger

FACTS = """
[operator]
id = "starlight"
name = "星河超算云"
tax_rate = 0.06

[[clusters]]
name = "hpc1"
timezone = "Asia/Shanghai"
partitions = ["cpu"]
[[clusters]]
name = "ai1"
timezone = "Asia/Shanghai"
partitions = ["gpu"]

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
id = "card-hour"
product = "ai-cloud"
name = "A100 卡时"
unit = "card-hour"
[[skus]]
id = "ticket"
product = "conference"
name = "会议门票"
unit = "piece"
[[sku_rules]]
order = 1
resource = "measure:core_without_cards"
sku = "core-hour"
[[sku_rules]]
order = 2
resource = "card:a100"
sku = "card-hour"
[[sku_rules]]
order = 3
resource = "cpu"
included = true
[[sku_rules]]
order = 4
resource = "node"
included = true
[[sku_rules]]
order = 5
resource = "wall"
included = true

[[prices]]
sku = "core-hour"
effective_from = 2026-10-01
unit_price = 0.10
[[prices]]
sku = "core-hour"
effective_from = 2026-11-16
unit_price = 0.20
[[prices]]
sku = "card-hour"
effective_from = 2026-10-01
tiers = [{ up_to = 10, unit_price = 8 }, { unit_price = 6 }]
[[prices]]
sku = "ticket"
effective_from = 2026-01-01
unit_price = 1900

[[customers]]
id = "u-pre"
name = "北方大学"
kind = "university"
email = "finance@north.example.edu"
projects = [{ id = "physics", name = "物理" }, { id = "chem", name = "化学" }]
[[customers]]
id = "c-line"
name = "Deep River"
kind = "company"
language = "en"
projects = [{ id = "llm", name = "LLM" }]
[[customers]]
id = "c-both"
name = "双河公司"
kind = "company"
projects = [{ id = "dev", name = "研发" }]
[[customers]]
id = "u-pack"
name = "南方大学"
kind = "university"
projects = [{ id = "bio", name = "生物" }]
[[customers]]
id = "p-grant"
name = "李雷"
kind = "person"
projects = [{ id = "own", name = "自己" }]

[[contracts]]
number = "HT-PRE"
customer = "u-pre"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "prepaid"
[[contracts]]
number = "HT-LINE"
customer = "c-line"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "credit_line"
credit_limit = "100.00"
payment_days = 30
[[contracts]]
number = "HT-BOTH"
customer = "c-both"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "credit_line"
credit_limit = "50.00"
payment_days = 30
[[contracts]]
number = "HT-PACK"
customer = "u-pack"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "prepaid"
[[contracts]]
number = "HT-GRANT"
customer = "p-grant"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "prepaid"

[[mappings]]
cluster = "*"
account = "physics"
project = "u-pre/physics"
[[mappings]]
cluster = "*"
account = "chem"
project = "u-pre/chem"
[[mappings]]
cluster = "*"
account = "llm"
project = "c-line/llm"
[[mappings]]
cluster = "*"
account = "dev"
project = "c-both/dev"
[[mappings]]
cluster = "*"
account = "bio"
project = "u-pack/bio"
[[mappings]]
cluster = "*"
account = "own"
project = "p-grant/own"

[[packs]]
id = "pack-1"
customer = "u-pack"
contract = "HT-PACK"
sku = "core-hour"
quantity = 100
price = "7.00"
bought_on = 2026-10-02
valid_from = 2026-10-02
last_day = 2027-10-01
reference = "bank 1002"
[[grants]]
id = "trial-1"
customer = "p-grant"
contract = "HT-GRANT"
face_value = "5.00"
granted_on = 2026-10-02
last_day = 2027-03-31
reason = "trial"
"""
SACCT = "JobIDRaw|Submit|Start|End|State|ElapsedRaw|Suspended|AllocTRES|Account|User|Partition|QOS|Cluster\n"
NOON = datetime.fromisoformat("2026-11-20T12:00:00+08:00")
CLUSTER_OF_PARTITION = {"cpu": "hpc1", "gpu": "ai1"}


@dataclass(frozen=True)
class Run:
    """One attempt as its source tells it: so many cores, or cards, for so many hours."""

    id: str
    account: str
    start: str  # local, as 2026-11-03T08:00
    core_hours: float = 0
    card_hours: float = 0
    card: str = "a100"
    revision: int = 1
    partition: str = ""
    user: str = "alice"

    def event(self) -> dict[str, Any]:
        """The CloudEvent: an hour long, so that cores are core-hours."""
        begun = datetime.fromisoformat(f"{self.start}:00+08:00")
        partition = self.partition or ("gpu" if self.card_hours else "cpu")
        resources: dict[str, Any] = (
            {"cpus": 1, "nodes": 1} if self.card_hours else {"cpus": self.core_hours, "nodes": 1}
        )
        if self.card_hours:
            resources["cards"] = {self.card: self.card_hours}
        return {
            "specversion": "1.0",
            "type": "hourbook.usage.v1",
            "source": "stories",
            "id": self.id,
            "data": {
                "cluster": CLUSTER_OF_PARTITION.get(partition, "hpc1"),
                "partition": partition,
                "account": self.account,
                "user": self.user,
                "state": "completed",
                "revision": self.revision,
                "start": begun.isoformat(),
                "end": (begun + timedelta(hours=1)).isoformat(),
                "resources": resources if self.core_hours or self.card_hours else {},
            },
        }


@dataclass
class Operator:
    """The operator's home, and what a person does with it."""

    folder: Path
    time: datetime = NOON
    made: Home | None = None  # on a database of the story's own choice
    home: Home = field(init=False)
    files: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        made = self.made or create_home(self.folder / "home")
        self.home = replace(made, clock=lambda: self.time, fixed_clock=None)
        self.apply(FACTS)

    def at(self, local: str) -> None:
        """Set the clock, as 2026-12-01T10:00."""
        self.time = datetime.fromisoformat(f"{local}:00+08:00")

    def _file(self, suffix: str, content: bytes) -> Path:
        self.files += 1
        path = self.folder / f"given-{self.files}.{suffix}"
        path.write_bytes(content)
        return path

    def apply(self, toml: str) -> None:
        """Record configuration."""
        apply_files(self.home, [self._file("toml", toml.encode())])

    def used(self, *runs: Run) -> None:
        """Let usage arrive."""
        import_events(self.home, [self._file("json", orjson.dumps([run.event() for run in runs]))])

    def sacct(self, *rows: str, cluster: str = "hpc1") -> None:
        """Let a log of sacct arrive."""
        path = self._file("psv", (SACCT + "".join(f"{row}\n" for row in rows)).encode())
        import_slurm(self.home, [path], SlurmLog(cluster))

    def top_up(self, customer: str, amount: str, reference: str, on: str, *, project: str = "") -> bool:
        """Receive money in advance."""
        minor = parse_amount(amount, "CNY")
        return receive(self.home, TopUp(customer, minor, reference, date.fromisoformat(on), project=project))

    def accrue(self) -> None:
        """Bring the books up to all usage."""
        accrue_open_months(self.home)

    def close(self, month: str) -> Closed:
        """Close a month after it is over; the books must be in order before and after."""
        accrue_open_months(self.home)
        assert audit(self.home).findings == ()
        closed = close_month(self.home, month)
        assert audit(self.home).findings == ()
        return closed

    def blocked(self, month: str) -> list[tuple[str, str]]:
        """Try to close a month and return what blocks it: code, and the command that resolves it."""
        try:
            close_month(self.home, month)
        except CloseRefusedError as refused:
            return [(blocker.code, blocker.command) for blocker in refused.blockers]
        return []

    def resolve(self, entry: str, **decision: Any) -> None:  # noqa: ANN401
        """Decide about an exception or a quarantined row."""
        resolve_exception(self.home, Decision(entry, "as the story says", **decision))

    def documents(self, month: str | None = None, customer: str | None = None) -> list[DocumentContent]:
        """Issued documents, by number."""
        with read_session(self.home.engine) as session:
            return [invoices.content_of(row) for row in invoices.documents(session, month=month, customer=customer)]

    def document(self, month: str, customer: str, kind: str = "statement") -> DocumentContent:
        """The one document of a customer's month of a kind."""
        (found,) = [one for one in self.documents(month, customer) if one.kind == kind]
        return found

    def wallet(self, month: str, customer: str) -> Wallet:
        """The wallet of a statement."""
        wallet = self.document(month, customer).wallet
        assert wallet is not None
        return wallet

    def balance(self, customer: str) -> Balance:
        """Where a customer stands after all usage."""
        self.accrue()
        with read_session(self.home.engine) as session:
            return balance_of(self.home, session, customer)

    def booked(self, customer: str | None = None) -> dict[str, int]:
        """Balances by account code, debit positive, money only."""
        sums: dict[str, int] = defaultdict(int)
        with read_session(self.home.engine) as session:
            for key, amount in ledger.balances(session, customer=customer).items():
                if key.asset == "CNY":
                    sums[key.code] += amount
        return {code: amount for code, amount in sums.items() if amount}

    def rebuilt(self) -> list[str]:
        """Derive what every issued document says again; return the numbers of those that differ."""
        with read_session(self.home.engine) as session:
            rows = invoices.documents(session)
            return [
                row.number for row in rows if content_hash(derived_content(self.home, session, row)) != row.content_hash
            ]

    def rebuilt_to_the_byte(self) -> list[str]:
        """Derive every issued document again, pages too; return the numbers of those that differ."""
        return [one.number for one in self.documents() if not rebuild(self.home, one.number).equal]

    def render(self) -> None:
        """Render every document once."""
        for one in self.documents():
            pdf_of(self.home, one.number)


def lines_of(document: DocumentContent) -> list[tuple[str, str, str, Decimal, int]]:
    """What a document's lines say: category, month, SKU, quantity, amount here."""
    return [(*_named(line), Decimal(line.quantity), line.amount_minor) for line in document.lines]


def _named(line: DocumentLine) -> tuple[str, str, str]:
    return line.category, line.original_month, line.sku


def codes(blockers: Sequence[tuple[str, str]]) -> list[str]:
    """The codes of what blocks a close."""
    return [code for code, _ in blockers]
