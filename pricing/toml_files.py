"""Configuration from TOML files: typed entries, and for everything wrong its file, line, table, key and value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pricing.problems import Problem
from pricing.toml_lines import Places
from pricing.toml_messages import problem_of


@dataclass(frozen=True)
class Kind:
    """How one table of configuration becomes facts: its model, and the key that a version replaces."""

    name: str  # of its facts, e.g. "price"
    table: str  # in TOML, e.g. "prices"
    model: type[BaseModel]
    key: Callable[[Any], str]  # of a validated entry
    single: bool = False  # written `[table]`, once, instead of `[[table]]`


@dataclass(frozen=True)
class TableEntry:
    """One valid entry, as read and as it is recorded."""

    kind: str
    key: str
    body: Mapping[str, Any]  # canonical and JSON-able: every key filled, decimals and days as text
    table: str
    file: str
    line: int


def read_tables(paths: Sequence[Path], kinds: Mapping[str, Kind]) -> tuple[list[TableEntry], list[Problem]]:
    """Read files, and folders with everything below, into valid entries and what is wrong with the others.

    `kinds` says, by the name of the table, what may stand there. Two entries with one key are refused.
    """
    entries: list[TableEntry] = []
    problems: list[Problem] = []
    for path in paths:
        files = sorted(path.rglob("*.toml")) if path.is_dir() else [path]
        if not files:
            problems.append(Problem("there is no *.toml file in this folder", file=str(path)))
        for file in dict.fromkeys(files):
            for found in _read_file(file, kinds):
                (entries if isinstance(found, TableEntry) else problems).append(found)  # type: ignore[arg-type]
    return _each_key_once(entries, problems)


def body_of(entry: BaseModel) -> dict[str, Any]:
    """Write a validated entry in its canonical form, as it is recorded."""
    return entry.model_dump(mode="json")


def facts_of(entries: Sequence[TableEntry]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Arrange entries as facts: bodies by kind and key, as they are recorded."""
    facts: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in entries:
        facts.setdefault(entry.kind, {})[entry.key] = entry.body
    return facts


def _read_file(file: Path, kinds: Mapping[str, Kind]) -> Iterator[TableEntry | Problem]:
    try:
        text = file.read_bytes().decode("utf-8")
        document = tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        yield Problem(f"cannot be read: {error.strerror}", file=str(file))
        return
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        yield Problem("is not UTF-8 text; save the file as UTF-8", file=str(file), line=line)
        return
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line ([0-9]+)", str(error))
        line = int(at.group(1)) if at else text.count("\n") + 1
        yield Problem(f"is not TOML: {error}", file=str(file), line=line)
        return
    places = Places(text)
    for table, content in document.items():
        for found in _read_table(places, table, content, kinds):
            yield replace(found, file=str(file))


def _read_table(
    places: Places, table: str, content: object, kinds: Mapping[str, Kind]
) -> Iterator[TableEntry | Problem]:
    line = places.line_of(table, 0)
    kind = kinds.get(table)
    if kind is None:
        known = ", ".join(sorted(kinds))
        yield Problem(f"there is no such table; known are {known}", table=table, line=line)
        return
    rows = [content] if kind.single else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        header = f"[{table}]" if kind.single else f"[[{table}]]"
        yield Problem(f"write each entry under a header {header}", table=table, line=line)
        return
    for index, row in enumerate(rows):
        yield from _read_entry(places, kind, index, row)


def _read_entry(places: Places, kind: Kind, index: int, row: object) -> Iterator[TableEntry | Problem]:
    try:
        entry = kind.model.model_validate(row)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problem = problem_of(kind.model, kind.table, detail)
            yield replace(problem, line=places.line_of(kind.table, index, detail["loc"]))
        return
    line = places.line_of(kind.table, index)
    yield TableEntry(kind.name, kind.key(entry), body_of(entry), kind.table, "", line)


def _each_key_once(entries: Sequence[TableEntry], problems: list[Problem]) -> tuple[list[TableEntry], list[Problem]]:
    first: dict[tuple[str, str], TableEntry] = {}
    for entry in entries:
        earlier = first.setdefault((entry.kind, entry.key), entry)
        if earlier is not entry:
            message = f"stands already in {earlier.file}:{earlier.line}; keep one of the two"
            problems.append(Problem(message, table=entry.table, entry=entry.key, file=entry.file, line=entry.line))
    return list(first.values()), problems


def located(problems: Sequence[Problem], entries: Sequence[TableEntry]) -> list[Problem]:
    """Add file and line to problems that name an entry which was just read."""
    places = {(entry.table, entry.key): entry for entry in entries}
    found = [(problem, places.get((problem.table, problem.entry))) for problem in problems]
    return [replace(problem, file=at.file, line=at.line) if at else problem for problem, at in found]
