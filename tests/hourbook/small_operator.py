"""A small operator for stories about the server: two customers, one cluster, core-hours at one yuan."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from hourbook.applying import apply_files
from hourbook.database import create_home, run_write
from hourbook.settings import Home
from metering import store as metering
from metering.events import EVENT_SCHEMA, Collected

FACTS = """
[operator]
id = "starlight"
name = "星河超算云"
name_en = "Starlight"
billing_timezone = "{zone}"
currency = "CNY"
tax_rate = 0.06

[[clusters]]
name = "hpc1"
timezone = "{zone}"
partitions = ["cpu"]

[[customers]]
id = "u-north"
name = "北方大学"
kind = "university"
projects = [{{ id = "physics", name = "物理" }}]

[[customers]]
id = "u-south"
name = "南方大学"
kind = "university"

[[contracts]]
number = "HT-1"
customer = "u-north"
signed_on = 2020-01-01
valid_from = 2020-01-01
last_day = 2039-12-31
billing = "prepaid"

[[contracts]]
number = "HT-2"
customer = "u-south"
signed_on = 2020-01-01
valid_from = 2020-01-01
last_day = 2039-12-31
billing = "prepaid"

[[mappings]]
cluster = "hpc1"
account = "grp"
project = "u-north/physics"

[[skus]]
id = "core-hour"
product = "general-hpc"
name = "CPU 核时"
unit = "core-hour"

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
resource = "node"
included = true

[[sku_rules]]
order = 3
cluster = "*"
partition = "*"
qos = "*"
resource = "wall"
included = true

[[prices]]
sku = "core-hour"
effective_from = 2020-01-01
unit_price = 1
"""

NUMBERS = itertools.count(1)


def make_home(folder: Path, clock: Callable[[], datetime], *, zone: str = "Asia/Shanghai") -> Home:
    """Make a home with the small operator in it, whose clock the test holds."""
    home = replace(create_home(folder / "home"), clock=clock)
    file = folder / "operator.toml"
    file.write_text(FACTS.format(zone=zone), encoding="utf-8")
    apply_files(home, [file])
    return home


def use(home: Home, start: datetime, *, core_hours: int = 1, account: str = "grp") -> None:
    """Let usage arrive in the inbox: so many cores for an hour."""
    second, number = int(start.astimezone(UTC).timestamp()), next(NUMBERS)
    job = {
        "source": "slurm:hpc1",
        "id": f"{number}:{second}",
        "revision": 1,
        "revision_derived": True,
        "cluster": "hpc1",
        "partition": "cpu",
        "qos": "normal",
        "account": account,
        "user": "alice",
        "job": str(number),
        "state": "COMPLETED",
        "start_second": second,
        "end_second": second + 3600,
        "ended": True,
        "suspended_seconds": 0,
        "cpus": core_hours,
        "nodes": 1,
        "memory_bytes": 0,
        "cards": "",
        "counters": "",
        "evidence": "{}",
    }
    collected = Collected(pl.DataFrame([job], schema=EVENT_SCHEMA, orient="row"), (), {})
    run_write(
        home.engine,
        lambda session: metering.accept(session, collected, f"job {number}", f"digest {number}", home.now()),
    )
