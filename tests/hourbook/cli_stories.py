"""What the stories about the command line share: run it in process, as a user would, in a home of the test's own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from hourbook.cli.main import app

COLUMNS = "JobIDRaw|Cluster|Partition|QOS|Account|User|Submit|Start|End|ElapsedRaw|State|NNodes|NCPUS|AllocTRES|JobName"
START = 1_793_500_000  # 2026-11-01 in UTC and in Shanghai


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    def rows(self) -> list[dict[str, str]]:
        """Read what a machine gets as CSV."""
        return list(csv.DictReader(io.StringIO(self.out)))

    def json(self) -> Any:  # noqa: ANN401 - whatever was said
        """Read what a machine gets as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Terminal:
    """A user at a terminal."""

    home: Path

    def __call__(self, *arguments: str | Path) -> Answer:
        """Run a command; a traceback is never an answer."""
        result = CliRunner().invoke(app, ["--home", str(self.home), *(str(one) for one in arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def done(self, *arguments: str | Path) -> Answer:
        """Run a command that must succeed."""
        answer = self(*arguments)
        assert answer.code == 0, answer
        return answer


def fresh(folder: Path) -> Terminal:
    """Return a terminal with a home in which nothing happened yet, at ten in the morning of 1 December 2026."""
    terminal = Terminal(folder / "home")
    terminal.done("init", "--clock", "2026-12-01T10:00:00+08:00")
    return terminal


def sacct_row(job: int, facts: Mapping[str, object] | None = None) -> str:
    """Write a row of a log: four CPUs for an hour, unless it says otherwise."""
    said: dict[str, object] = {
        "JobIDRaw": job,
        "Cluster": "hpc1",
        "Partition": "cpu",
        "QOS": "normal",
        "Account": "grp",
        "User": "alice",
        "Submit": START,
        "Start": START,
        "End": START + 3600,
        "ElapsedRaw": 3600,
        "State": "COMPLETED",
        "NNodes": 1,
        "NCPUS": 4,
        "AllocTRES": "billing=4,cpu=4,mem=8G,node=1",
        "JobName": "run",
        **(facts or {}),
    }
    return "|".join(str(said[name]) for name in COLUMNS.split("|"))


def sacct_file(path: Path, rows: Sequence[str], *, header: str = COLUMNS) -> Path:
    """Write a log as `sacct -P` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n" if header else "\n".join(rows) + "\n", encoding="utf-8")
    return path
