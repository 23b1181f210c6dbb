"""Apply configuration: read TOML, check it as a whole with what is recorded, record what changed, post purchases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from sqlmodel import Session

from hourbook import facts
from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.facts import Changes
from hourbook.receiving import post_purchases
from hourbook.settings import Home
from metering.log_sources import LogSource
from pricing.catalog import Catalog
from pricing.checks import check
from pricing.kinds import KINDS
from pricing.problems import Problem
from pricing.toml_files import Kind, TableEntry, located, read_tables
from reconciliation import contract as suppliers
from reconciliation.contract import Supplier, SupplierContract

# What a server collects by itself; no price depends on it.
LOG_SOURCE = Kind("log_source", "collect", LogSource, attrgetter("name"))
ALL_KINDS = {**KINDS, **suppliers.KINDS, LOG_SOURCE.table: LOG_SOURCE}


class ConfigurationRefusedError(ValueError):
    """The configuration cannot be taken as it is; nothing was recorded."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problem(s) in the configuration; nothing was recorded")
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Applied:
    """What applying did, or would do."""

    changes: Changes
    purchases: int  # packs and grants posted


def apply_files(home: Home, paths: Sequence[Path], *, dry_run: bool = False, person: str = "") -> Applied:
    """Record the configuration in files and folders; refused as a whole if anything in it is wrong."""
    entries, problems = read_tables(paths, ALL_KINDS)
    if problems:
        raise ConfigurationRefusedError(problems)
    new = {(entry.kind, entry.key): entry.body for entry in entries}
    with read_session(home.engine) as session:
        recorded, seq = facts.as_of(session), facts.latest(session)
    _check_whole(recorded, new, entries)
    if dry_run:
        return Applied(_planned(recorded, new, seq), 0)
    source = ", ".join(str(path) for path in paths)

    def work(session: Session) -> Applied:
        changes = facts.record(session, new, home.now(), source=source, person=person)
        catalog = Catalog.from_facts(facts.as_of(session))
        applied = Applied(changes, post_purchases(session, catalog, home.now()))
        crash_point("apply:before_commit")
        return applied

    applied = run_write(home.engine, work)
    crash_point("apply:after_commit")
    return applied


def _check_whole(
    recorded: Mapping[str, Mapping[str, dict[str, Any]]],
    new: Mapping[facts.FactKey, Mapping[str, Any]],
    entries: Sequence[TableEntry],
) -> None:
    whole: dict[str, dict[str, Mapping[str, Any]]] = {kind: dict(bodies) for kind, bodies in recorded.items()}
    for (kind, key), body in new.items():
        whole.setdefault(kind, {})[key] = body
    catalog = Catalog.from_facts(whole)
    made = [Supplier.model_validate(body) for body in whole.get("supplier", {}).values()]
    agreed = [SupplierContract.model_validate(body) for body in whole.get("supplier_contract", {}).values()]
    problems = [*check(catalog), *suppliers.check(made, agreed, catalog.clusters)]
    if problems:
        raise ConfigurationRefusedError(located(problems, entries))


def _planned(
    recorded: Mapping[str, Mapping[str, Mapping[str, Any]]], new: Mapping[facts.FactKey, Mapping[str, Any]], seq: int
) -> Changes:
    """Say what recording would do, without doing it."""
    before = {fact: recorded.get(fact[0], {}).get(fact[1]) for fact in new}
    return Changes(
        seq,
        added=tuple(sorted(fact for fact in new if before[fact] is None)),
        changed=tuple(sorted(fact for fact in new if before[fact] is not None and before[fact] != new[fact])),
        unchanged=tuple(sorted(fact for fact in new if before[fact] == new[fact])),
    )
