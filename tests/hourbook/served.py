"""A small operator that is served: two customers, a month closed, and a key for every role."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import orjson
from fastapi.testclient import TestClient
from pydantic import SecretStr

from hourbook.accruing import accrue_open_months
from hourbook.api.app import create_app
from hourbook.applying import apply_files
from hourbook.closing import close_month
from hourbook.database import create_home, open_home, run_write
from hourbook.importing import accept_payload
from hourbook.keys import Role, create_key, revoke_key
from hourbook.receiving import TopUp, receive
from hourbook.settings import DATABASE_FILE, Home, Settings
from metering.cloud_events import read_events

CLOCK = datetime.fromisoformat("2026-12-01T10:00:00+08:00")
MONTH = "2026-11"
NORTH, SOUTH = "u-north", "c-south"
STATEMENT, INVOICE = "STM-2026-00001", "INV-2026-00001"  # north's and south's
ON_SQLITE = Settings(database_url="")
WHO = ("anonymous", "revoked", "other", "own", "finance", "collector", "operator")

FACTS = """
[operator]
id = "starlight"
name = "星河超算云"
name_en = "Starlight Cloud"
[[clusters]]
name = "hpc1"
timezone = "Asia/Shanghai"
cpus_per_core = [{ cpus = 1 }]
partitions = ["cpu", "gpu"]
cards = [{ gres = "gpu", model = "a100" }]
[[customers]]
id = "u-north"
name = "北方大学"
name_en = "North University"
kind = "university"
projects = [{ id = "physics", name = "物理", name_en = "Physics" }]
[[customers]]
id = "c-south"
name = "南方科技"
name_en = "South Ltd."
kind = "company"
language = "en"
projects = [{ id = "main", name = "主项目", name_en = "Main" }]
[[contracts]]
number = "HT-1"
customer = "u-north"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "prepaid"
[[contracts]]
number = "HT-2"
customer = "c-south"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2027-12-31
billing = "credit_line"
credit_limit = "500.00"
payment_days = 30
[[mappings]]
cluster = "hpc1"
account = "physics"
project = "u-north/physics"
[[mappings]]
cluster = "hpc1"
account = "south"
project = "c-south/main"
[[skus]]
id = "core-hour"
product = "general-hpc"
name = "CPU 核时"
name_en = "CPU core-hours"
unit = "core-hour"
[[skus]]
id = "card-hour"
product = "ai-cloud"
name = "卡时"
name_en = "Card-hours"
unit = "card-hour"
[[sku_rules]]
order = 1
cluster = "*"
partition = "*"
qos = "*"
resource = "cpu"
sku = "core-hour"
[[sku_rules]]
order = 2
cluster = "*"
partition = "*"
qos = "*"
resource = "card:*"
sku = "card-hour"
[[sku_rules]]
order = 3
cluster = "*"
partition = "*"
qos = "*"
resource = "node"
included = true
[[sku_rules]]
order = 4
cluster = "*"
partition = "*"
qos = "*"
resource = "wall"
included = true
[[prices]]
sku = "core-hour"
effective_from = 2026-01-01
unit_price = 0.10
[[prices]]
sku = "card-hour"
effective_from = 2026-01-01
unit_price = 4
[[packs]]
id = "pack-1"
customer = "u-north"
contract = "HT-1"
sku = "core-hour"
quantity = 100
price = "8.00"
bought_on = 2026-11-28
valid_from = 2026-11-28
last_day = 2027-11-27
"""


def usage_event(number: int, account: str = "physics", day: int = 25, hours: int = 2, **data: Any) -> dict[str, Any]:  # noqa: ANN401
    """An attempt of some hours on 40 cores and one card, on a day of November."""
    start = f"2026-11-{day:02}T00:00:00+08:00"
    body = {
        "cluster": "hpc1",
        "partition": "gpu",
        "account": account,
        "user": f"user-{number % 3}",
        "state": "completed",
        "start": start,
        "end": f"2026-11-{day:02}T{hours:02}:00:00+08:00",
        "resources": {"cpus": 40, "nodes": 1, "cards": {"a100": 1}},
        **data,
    }
    return {
        "specversion": "1.0",
        "id": f"job-{number}",
        "source": "test:hpc1",
        "type": "hourbook.usage.v1",
        "data": body,
    }


@cache
def _template() -> tuple[Path, Mapping[str, str]]:
    """Build the home once for all tests of a process; each works on a copy."""
    path = Path(mkdtemp(prefix="hourbook-served-"))
    facts = path / "facts.toml"
    facts.write_text(FACTS, encoding="utf-8")
    home = create_home(path / "home", CLOCK, settings=ON_SQLITE)
    apply_files(home, [facts])
    receipt = TopUp(NORTH, 100_000, "bank 1", date(2026, 11, 1))
    receive(home, receipt)
    payload = orjson.dumps([usage_event(n, "south" if n % 4 == 3 else "physics", day=5 + n) for n in range(24)])
    collected = read_events(payload, format="json", now=home.now())
    accept_payload(home, payload, collected, kind="cloud_events", origin="test")
    accrue_open_months(home)
    close_month(home, MONTH)
    keys = {"own": make_key(home, "customer", NORTH), "other": make_key(home, "customer", SOUTH)}
    keys |= {"finance": make_key(home, "finance"), "collector": make_key(home, "collector")}
    keys["operator"] = make_key(home, "operator")
    keys["revoked"] = make_key(home, "customer", NORTH)
    keys["anonymous"] = ""
    home.close()
    return path / "home", keys


def make_key(home: Home, role: Role, customer: str = "") -> str:
    """A new key of a role."""
    return run_write(home.engine, lambda session: create_key(session, role, home.now(), customer=customer))


def revoke(home: Home, key: str) -> None:
    """End a key."""
    run_write(home.engine, lambda session: revoke_key(session, key.split("_")[1], home.now()))


@dataclass(frozen=True)
class Served:
    """A home of its own, its application, and a key for each kind of caller."""

    home: Home
    client: TestClient
    keys: Mapping[str, str]

    def bearer(self, who: str) -> dict[str, str]:
        """The headers with which somebody calls."""
        return {"Authorization": f"Bearer {self.keys[who]}"} if self.keys[who] else {}

    def get(self, path: str, who: str = "own", **parameters: str) -> Any:  # noqa: ANN401 - a response
        """Ask for something as somebody."""
        return self.client.get(path, headers=self.bearer(who), params=parameters)


def copy_home(folder: Path) -> tuple[Path, Mapping[str, str]]:
    """A copy of the home, with a key for each kind of caller; the revoked one still works."""
    template, keys = _template()
    shutil.copytree(template, folder / "home")
    return folder / "home", keys


@contextmanager
def served(folder: Path, *, stripe: bool = False, jobs: bool = False) -> Iterator[Served]:
    """Serve a copy of the home, without payments and without scheduled jobs where they are not asked for."""
    path, keys = copy_home(folder)
    home = open_home(path, settings=ON_SQLITE)
    revoke(home, keys["revoked"])
    # Nothing answers at the provider's address, so that no test ever calls the real one.
    settings = Settings(
        stripe_api_base="http://127.0.0.1:9",
        stripe_api_key=SecretStr("sk_test_1" if stripe else ""),
        stripe_webhook_secret=SecretStr("whsec_test_1" if stripe else ""),
        accrue_every_seconds=1,
    )
    client = TestClient(create_app(home, settings), raise_server_exceptions=False, follow_redirects=False)
    try:
        if jobs:
            with client:
                yield Served(home, client, keys)
        else:
            yield Served(home, client, keys)
    finally:
        home.close()


def content_of_database(home: Home) -> dict[str, str]:
    """A fingerprint of every table: what a refused request must leave as it is."""
    with closing(sqlite3.connect(home.path / DATABASE_FILE)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            name: hashlib.sha256(repr(connection.execute(f"SELECT * FROM {name}").fetchall()).encode()).hexdigest()  # noqa: S608
            for name in tables
        }
