"""`init`, `import` and `usage`: from a log to hours on a home in which nothing was configured."""

from __future__ import annotations

import csv
import gzip
import random
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from hourbook.cli.main import app
from tests.hourbook.cli_stories import Terminal, fresh, sacct_file, sacct_row

DAYS = ("--from", "2026-11-01", "--to", "2026-11-30")
PHILLIPS_COLUMNS = (
    "JobID,JobIDRaw,Cluster,Partition,QOS,Account,Group,GID,User,UID,Submit,Eligible,Start,End,Elapsed,ExitCode,State,"
    "NNodes,NCPUS,ReqCPUS,ReqMem,ReqTRES,AllocTRES,Timelimit,NodeList,JobName"
)
PHILLIPS = ("--columns", PHILLIPS_COLUMNS, "--timezone", "UTC", "--cluster", "phillips")
TABLES = {
    "core_hours": "total_cpu_hours",
    "card_hours": "total_gpu_hours",
    "node_hours": "total_node_hours",
    "wall_hours": "total_wallduration_hours",
    "jobs": "job_count",
}


def expected(shared_data: Path) -> dict[str, dict[str, Decimal]]:
    """Open XDMoD's figures by day."""
    days: dict[str, dict[str, Decimal]] = {}
    for ours, theirs in TABLES.items():
        with (shared_data / "xdmod" / "expected" / f"{theirs}.csv").open() as file:
            for row in csv.DictReader(file):
                days.setdefault(row["day"], {})[ours] = Decimal(row["phillips"])
    return days


def by_day(terminal: Terminal) -> dict[str, dict[str, Decimal]]:
    """The same figures as the command prints them, to 4 decimals."""
    days = ("--from", "2016-12-01", "--to", "2017-01-31", "--by", "day,cluster", "--timezone", "UTC")
    rows = terminal.done("usage", *days, "--format", "csv").rows()
    assert {row["cluster"] for row in rows} == {"phillips"}
    return {row["day"]: {name: rounded(row[name], name) for name in TABLES} for row in rows}


def rounded(text: str, name: str) -> Decimal:
    return Decimal(text) if name == "jobs" else Decimal(text).quantize(Decimal("0.0001"), ROUND_HALF_UP)


@pytest.mark.shared
def test_a_real_log_on_a_fresh_home_gives_the_hours_of_an_independent_system(shared_data: Path, tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    log = shared_data / "xdmod" / "phillips.log.gz"
    answer = terminal.done("import", "slurm", log, *PHILLIPS, "--format", "json")
    [file] = answer.json()
    assert file["rows"] == 4285
    assert file["rows"] == file["kept"] + file["no_usage"] + file["quarantined"]
    assert by_day(terminal) == expected(shared_data)
    again = terminal.done("import", "slurm", log, *PHILLIPS, "--format", "json").json()
    assert (again[0]["kept"], again[0]["duplicate"]) == (0, file["kept"])
    assert by_day(terminal) == expected(shared_data)


@pytest.mark.shared
def test_overlapping_files_in_any_order_give_the_same_hours(shared_data: Path, tmp_path: Path) -> None:
    lines = gzip.decompress((shared_data / "xdmod" / "phillips.log.gz").read_bytes()).splitlines(keepends=True)
    chance = random.Random(7)  # noqa: S311 - an order, no secret
    borders = [len(lines) * part // 7 for part in range(8)]
    parts = [lines[max(first - 200, 0) : last] for first, last in pairwise(borders)]
    chance.shuffle(parts)
    files = []
    for number, part in enumerate(parts):
        chance.shuffle(part)
        files.append(tmp_path / f"part-{number}.psv")
        files[-1].write_bytes(b"".join(part))
    terminal = fresh(tmp_path)
    rows = terminal.done("import", "slurm", *files, *PHILLIPS, "--format", "csv").rows()
    assert all(
        int(row["rows"]) == sum(int(count) for name, count in row.items() if name not in {"file", "rows"})
        for row in rows
    )
    assert sum(int(row["kept"]) for row in rows) == 4046
    assert by_day(terminal) == expected(shared_data)


def test_an_undescribed_cluster_gets_defaults_and_the_import_says_so(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    log = sacct_file(tmp_path / "log.psv", [sacct_row(1)])
    assert "cluster hpc1 is not described yet" in terminal.done("import", "slurm", log, "--cluster", "hpc1").err
    toml = tmp_path / "clusters.toml"
    toml.write_text('[[clusters]]\nname = "hpc1"\ncpus_per_core = [{ cpus = 2 }]\n', encoding="utf-8")
    terminal.done("apply", toml)
    assert "not described" not in terminal.done("import", "slurm", log, "--cluster", "hpc1").err
    [row] = terminal.done("usage", *DAYS, "--format", "csv").rows()
    assert row["core_hours"] == "2.000000"


def test_files_of_one_name_in_several_folders_can_be_told_apart(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    files = [sacct_file(tmp_path / day / "sacct.psv", [sacct_row(job)]) for job, day in enumerate(("mon", "tue"), 1)]
    rows = terminal.done("import", "slurm", *files, "--cluster", "hpc1", "--format", "csv").rows()
    assert [row["file"] for row in rows] == ["mon/sacct.psv", "tue/sacct.psv"]


def test_machines_get_nothing_but_rows_on_standard_output(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    log = sacct_file(tmp_path / "log.psv", [sacct_row(1)])
    imported = terminal.done("import", "slurm", log, "--cluster", "hpc1", "--format", "csv")
    assert imported.out.startswith("file,rows,kept,")
    assert len(imported.rows()) == 1
    usage = terminal.done("usage", *DAYS, "--by", "day,user", "--format", "json")
    assert usage.json() == [
        {
            "day": "2026-11-01",
            "user": "alice",
            "core_hours": "4.000000",
            "card_hours": "0.000000",
            "node_hours": "1.000000",
            "wall_hours": "1.000000",
            "jobs": 1,
        }
    ]
    assert "clock fixed at 2026-12-01 10:00:00+0800 (Asia/Shanghai)" in usage.err


def test_a_home_without_usage_answers_with_a_header_and_no_rows(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    empty = terminal.done("usage", *DAYS, "--by", "day,cluster", "--format", "csv")
    assert empty.out == "day,cluster,core_hours,card_hours,node_hours,wall_hours,jobs\n"
    assert terminal.done("usage", *DAYS, "--format", "json").json() == []
    assert "no usage on these days" in terminal.done("usage", *DAYS).out


def test_a_cell_that_would_run_as_a_formula_is_made_harmless_and_an_empty_one_stays_empty(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    log = sacct_file(tmp_path / "log.psv", [sacct_row(1, {"User": "=cmd()"}), sacct_row(2, {"User": ""})])
    terminal.done("import", "slurm", log, "--cluster", "hpc1")
    rows = terminal.done("usage", *DAYS, "--by", "user", "--format", "csv").rows()
    assert sorted(row["user"] for row in rows) == ["", "'=cmd()"]


def test_names_with_control_characters_cannot_move_the_cursor(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    log = sacct_file(tmp_path / "log.psv", [sacct_row(1, {"User": "a\x1b[31mb[bold]"})])
    terminal.done("import", "slurm", log, "--cluster", "hpc1")
    out = terminal.done("usage", *DAYS, "--by", "user").out
    assert "\x1b" not in out
    assert r"a\x1b[31mb[bold]" in out


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A home for what must change nothing in it."""
    return fresh(tmp_path_factory.mktemp("refusing"))


USAGE = ("usage", "--from", "2026-11-01", "--to", "2026-11-30")
LOG = ("import", "slurm", "LOG", "--cluster", "hpc1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("usage", "--from", "2026-11-01"), "--to"),
        (("usage", "--from", "2026-11-31", "--to", "2026-12-01"), "no day"),
        (("usage", "--from", "2026-11-02", "--to", "2026-11-01"), "lies before"),
        (("usage", "--from", "0001-01-01", "--to", "9999-12-31"), "outside the years"),
        ((*USAGE, "--timezone", "Mars/Olympus"), "no time zone"),
        ((*USAGE, "--timezone", "../../etc/passwd"), "no time zone"),
        ((*USAGE, "--by", "day,colour"), "unknown field(s) colour"),
        ((*USAGE, "--format", "xml"), "xml"),
        (("usages",), "No such command"),
        (("init", "--clock", "tomorrow"), "no instant"),
        (("init", "--clock", "2026-12-01T10:00:00"), "has no zone"),
        (("import", "slurm", "LOG"), "--cluster"),
        (("import", "slurm", "nowhere.psv", "--cluster", "hpc1"), "nowhere.psv"),
        ((*LOG, "--timezone", "Nowhere"), "no time zone"),
        ((*LOG, "--columns", "JobIDRaw,,State"), "leaves a name out"),
        (("import", "slurm", "LOG", "--cluster", " "), "must say something"),
        (("import", "bill", "LOG", "--supplier", "gz", "--month", "2026-13"), "not a month"),
        (("close", "November"), "not a month"),
        (("close", "0000-01"), "0000-01"),
        (("invoice", "list", "2026-1"), "not a month"),
        (("invoice", "pdf", "--out", "x"), "--all"),
        (("invoice", "explain", "INV-1", "--line", "0"), "--line"),
        (("invoice", "pay", "INV-1", "5.00"), "--reference"),
        (("topup", "u-north", "-5.00", "--reference", "x"), "-5"),
        (("topup", "u-north", "1e3", "--reference", "x"), "1e3"),
        (("topup", "u-north", "NaN", "--reference", "x"), "NaN"),
        (("topup", "u-north", "1.001", "--reference", "x"), "more decimals"),
        (("topup", "u-north", "0", "--reference", "x"), "not more than nothing"),
        (("topup", "u-north", "99999999999999999.00", "--reference", "x"), "beyond what the ledger can hold"),
        (("topup", "u-north", "5.00", "--reference", "  "), "must say something"),
        (("topup", "u-north", "5.00", "--reference", "x", "--received-on", "2027-01-01"), "has not come yet"),
        (("resolve", "Q-1", "--dismiss"), "--reason"),
        (("resolve", "Q-1", "--dismiss", "--write-off", "--reason", "x"), "say one of"),
        (("resolve", "Q-1", "--map", "u-north", "--reason", "x"), "CUSTOMER/PROJECT"),
        (("reconcile", "2026-00"), "not a month"),
    ],
)
def test_wrong_use_says_what_is_wrong_and_exits_with_2(
    terminal: Terminal, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    log = sacct_file(tmp_path / "log.psv", [sacct_row(1)])
    answer = terminal(*(str(log) if one == "LOG" else one for one in arguments))
    assert answer.code == 2, answer
    assert answer.out == ""
    assert said in " ".join(answer.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("init",), "is a home already"),
        (("import", "slurm", "EMPTY", "--cluster", "hpc1"), "the file is empty"),
        (("import", "slurm", "HEADLESS", "--cluster", "hpc1"), "--columns"),
        (("import", "slurm", "NAIVE", "--cluster", "hpc1"), "--timezone"),
        (("import", "bill", "EMPTY", "--supplier", "gz", "--month", "2026-11"), "supplier 'gz' is unknown"),
        (("apply", "HEADLESS"), "1 problem(s)"),
        (("quarantine", "show", "Q-9"), "no quarantine entry 'Q-9'"),
        (("quarantine", "show", "U-9"), "no open exception 'U-9'"),
        (("resolve", "Q-9", "--dismiss", "--reason", "x"), "no quarantine entry"),
        (("close", "2026-12"), "cannot be closed"),
        (("invoice", "pdf", "INV-9", "--out", "bills"), "no document 'INV-9'"),
        (("invoice", "explain", "INV-9"), "no document 'INV-9'"),
        (("invoice", "rebuild", "INV-9"), "no document 'INV-9'"),
        (("invoice", "pay", "INV-9", "5.00", "--reference", "x"), "no document 'INV-9'"),
        (("balance", "nobody"), "customer 'nobody' is unknown"),
        (("topup", "nobody", "5.00", "--reference", "x"), "customer 'nobody' is unknown"),
        (("reconcile", "2026-11", "--supplier", "gz"), "supplier 'gz' is unknown"),
    ],
)
def test_refused_work_says_which_and_why_and_exits_with_1(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    naive = dict.fromkeys(("Submit", "Start", "End"), "2026-11-02T00:00:00")
    files = {
        "EMPTY": sacct_file(tmp_path / "empty.psv", [], header=""),
        "HEADLESS": sacct_file(tmp_path / "headless.psv", [sacct_row(1)], header=""),
        "NAIVE": sacct_file(tmp_path / "naive.psv", [sacct_row(1, naive)]),
    }
    answer = terminal(*(files.get(one, one) for one in arguments))
    assert answer.code == 1, answer
    assert "refused:" in answer.err
    assert said in " ".join(answer.err.split())


def test_where_there_is_no_home_every_command_says_how_to_create_one(tmp_path: Path) -> None:
    answer = Terminal(tmp_path / "nothing")("usage", *DAYS)
    assert answer.code == 1
    assert "is no home of Hourbook; create one with: hourbook --home" in answer.err
    assert not (tmp_path / "nothing").exists()


def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fresh(tmp_path)
    monkeypatch.setenv("HOURBOOK_ACCRUE_EVERY_SECONDS", "0")
    answer = terminal("usage", *DAYS)
    assert (answer.code, "HOURBOOK_ACCRUE_EVERY_SECONDS" in answer.err) == (1, True)


def test_a_database_that_another_process_holds_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from sqlalchemy.exc import OperationalError

    terminal = fresh(tmp_path)
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY

    def busy(*_: object) -> None:
        raise OperationalError("BEGIN IMMEDIATE", {}, locked)

    monkeypatch.setattr("hourbook.cli.usage.refresh", busy)
    answer = terminal("usage", *DAYS)
    assert (answer.code, "in use by another process" in answer.err) == (1, True)


def commands() -> list[tuple[str, ...]]:
    """Every command there is, by the words that call it."""
    found: list[tuple[str, ...]] = []
    context = typer.Context(get_command(app))

    def walk(group: object, words: tuple[str, ...]) -> None:
        for name in group.list_commands(context):  # type: ignore[attr-defined]
            command = group.get_command(context, name)  # type: ignore[attr-defined]
            if hasattr(command, "list_commands"):
                walk(command, (*words, name))
            else:
                found.append((*words, name))

    walk(get_command(app), ())
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(tmp_path: Path, command: tuple[str, ...]) -> None:
    answer = Terminal(tmp_path).done(*command, "--help")
    text = " ".join(answer.out.split())
    assert f"Example: hourbook {'--home' if command == ('init',) else ' '.join(command)}" in text


def test_the_commands_are_those_that_the_documentation_names() -> None:
    named = {
        *("init", "apply", "usage", "resolve", "close", "balance", "topup", "reconcile", "verify", "serve"),
        *("import slurm", "import events", "import bill", "key create", "quarantine list", "quarantine show"),
        *("quarantine retry", "invoice list", "invoice pdf", "invoice explain", "invoice rebuild", "invoice pay"),
    }
    assert named <= {" ".join(command) for command in commands()}


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    log = sacct_file(tmp_path / "log.psv", [sacct_row(job, {"User": f"u{job % 3}"}) for job in range(1, 9)])
    terminal.done("import", "slurm", log, "--cluster", "hpc1")
    rows = terminal.done("usage", *DAYS, "--by", "user,qos", "--format", "csv").rows()
    said = terminal.done("usage", *DAYS, "--by", "user,qos", "--format", "json").json()
    assert rows == [{name: str(value) for name, value in row.items()} for row in said]
