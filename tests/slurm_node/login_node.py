"""A login node for stories: a `sacct` that answers from a file, and the collector as the one program on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hourbook.cli.collect_slurm import program_bytes
from hourbook.slurm_node.asking import FIELDS

CLUSTER = "hpc1"
# Answers like sacct: every row of the file that was there in the window, with the delimiter that is asked for.
SACCT = """#!{python} -IS
import json, sys, time, calendar
options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
second = lambda text: calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
begin, end = second(options["starttime"]), second(options["endtime"])
with open({asked!r}, "a") as log:
    log.write(json.dumps([begin, end]) + "\\n")
answer = json.load(open({rows!r}))
for row in answer["rows"]:
    ended = int(row["End"]) if row["End"].isdigit() else 2**40
    if ended >= begin and int(row["Submit"]) <= end:
        cells = [row[name] for name in options["format"].split(",")]
        sys.stdout.write(options["delimiter"].join(cells) + "\\n")
sys.stderr.write(answer["says"])
sys.exit(answer["code"])
"""
SINFO = "#!/bin/sh\necho '1-00:00:00'\necho '12:00:00'\n"


def row(job: int, end: int, seconds: int = 600, **said: str) -> dict[str, str]:
    """A row of sacct: four CPUs for ten minutes, unless it says otherwise."""
    usual = {
        "JobID": str(job),
        "JobIDRaw": str(job),
        "DBIndex": str(job + 1000),
        "Cluster": CLUSTER,
        "Account": "grp",
        "User": "alice",
        "UID": "1001",
        "Partition": "cpu",
        "QOS": "normal",
        "Submit": str(end - seconds - 5),
        "Start": str(end - seconds),
        "End": str(end),
        "ElapsedRaw": str(seconds),
        "Suspended": "00:00:00",
        "NCPUS": "4",
        "NNodes": "1",
        "NodeList": "cn1",
        "AllocTRES": "billing=4,cpu=4,mem=8000M,node=1",
        "State": "COMPLETED",
        "ExitCode": "0:0",
        "TimelimitRaw": "60",
        "JobName": "run",
    }
    assert tuple(usual) == FIELDS
    return {**usual, **said}


@dataclass(frozen=True)
class LoginNode:
    """A folder with programs of Slurm, the collector, and its spool."""

    folder: Path

    @classmethod
    def set_up(cls, folder: Path) -> LoginNode:
        """Install everything."""
        node = cls(folder)
        (folder / "bin").mkdir(parents=True)
        (folder / "hourbook-slurm.pyz").write_bytes(program_bytes())
        paths = {"asked": str(folder / "asked.jsonl"), "rows": str(folder / "rows.json"), "python": sys.executable}
        for name, text in {"sacct": SACCT.format(**paths), "sinfo": SINFO}.items():
            (folder / "bin" / name).write_text(text, encoding="utf-8")
            (folder / "bin" / name).chmod(0o755)
        node.sacct_answers([])
        return node

    def sacct_answers(self, rows: Sequence[dict[str, str]], *, code: int = 0, says: str = "") -> None:
        """Let sacct answer with these rows from now on."""
        answer = {"rows": rows, "code": code, "says": says}
        (self.folder / "rows.json").write_text(json.dumps(answer), encoding="utf-8")

    def asked(self) -> list[tuple[int, int]]:
        """The windows that sacct was asked for."""
        log = self.folder / "asked.jsonl"
        return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    def command(self, server: str, *options: str, python: str = sys.executable) -> list[str]:
        """How the collector is called: by a Python that has nothing but its own library."""
        program = [python, "-I", "-S", str(self.folder / "hourbook-slurm.pyz"), "--cluster", CLUSTER]
        where = ["--server", server, "--spool", str(self.folder / "spool"), "--programs", str(self.folder / "bin")]
        return [*program, *where, *options]

    def environment(self, key: str) -> dict[str, str]:
        """What the collector finds in its environment."""
        return {"PATH": "/usr/bin:/bin", "HOURBOOK_API_KEY": key, "no_proxy": "*"}

    def collect(self, server: str, key: str, *options: str) -> subprocess.CompletedProcess[str]:
        """One turn of the collector."""
        return subprocess.run(
            self.command(server, "--once", *options),
            env=self.environment(key),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def waiting(self) -> list[str]:
        """What the server does not have yet."""
        return sorted(path.name for path in (self.folder / "spool" / "waiting").iterdir())

    def refused(self) -> list[str]:
        """What the server will never take."""
        return sorted(path.name for path in (self.folder / "spool" / "refused").iterdir())
