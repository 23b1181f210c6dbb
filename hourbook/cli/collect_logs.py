"""`collect pbs | lsf | sge | uge | swf | csv`: follow accounting logs as they grow; `collect status`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, notice, print_rows, refusals, refuse, say
from hourbook.cli.reading import read_words, read_zone
from hourbook.collecting import FOLLOWED_KINDS, FollowedLog, forget, poll_and_refresh
from hourbook.database import read_session
from hourbook.importing import OtherLog, catalog_of
from hourbook.settings import Home
from metering import store as metering
from metering.collectors.registry import COLLECTORS, OptionsError
from metering.store import BatchReceipt

STATUS = ("source", "file", "read_bytes", "read_lines", "read_at", "problem")

Paths = Annotated[
    list[Path], typer.Argument(help='Files, folders, or patterns in quotes such as "/var/log/acct*".', metavar="PATH…")
]


def register(group: typer.Typer) -> None:
    """Add the commands."""
    for kind in FOLLOWED_KINDS:
        needed = " --options columns.toml" if COLLECTORS[kind].needs_options else ""
        example = f"Example: hourbook collect {kind} /var/spool/accounting --cluster hpc2{needed} --interval 60"
        group.command(kind, help=f"Follow {COLLECTORS[kind].title}.", epilog=example)(_follow(kind))
    group.command("status", epilog="Example: hourbook collect status --format json")(status)


def _follow(kind: str) -> Callable[..., None]:
    def follow(  # noqa: PLR0913, PLR0917 - the command's own options
        context: typer.Context,
        paths: Paths,
        cluster: Annotated[str, typer.Option(parser=read_words, metavar="NAME", help="Whose log it is.")],
        timezone: Annotated[
            ZoneInfo | None, typer.Option(parser=read_zone, metavar="ZONE", help="Of times without a zone.")
        ] = None,
        options: Annotated[
            Path | None, typer.Option(exists=True, dir_okay=False, help="TOML with what the log does not say itself.")
        ] = None,
        interval: Annotated[int, typer.Option(min=1, help="Seconds between two looks at the files.")] = 60,
        once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,  # noqa: FBT002
        again: Annotated[bool, typer.Option("--again", help="Read all from the start; nothing counts twice.")] = False,  # noqa: FBT002
        form: FormatOption = Format.table,
    ) -> None:
        reader = COLLECTORS[kind]
        if reader.needs_options and options is None:
            raise typer.BadParameter(f"{kind} needs --options FILE.toml", param_hint="'--options'")
        home = home_of(context)
        with refusals(OptionsError):
            said = reader.parse_options(options.read_text(encoding="utf-8")) if options else None
            log = FollowedLog(OtherLog(reader, cluster, timezone, said), tuple(path.absolute() for path in paths))
            log.cutting()
        tell_if_undescribed(home, cluster)
        if again:
            say(f"{forget(home, log)} file(s) are read from the start", form)
        _poll_for_ever(home, log, 0 if once else interval, form)

    return follow


def _poll_for_ever(home: Home, log: FollowedLog, interval: int, form: Format) -> None:
    told: Sequence[str] = ()
    while True:
        polled = poll_and_refresh(home, log)
        tell_receipts(polled.receipts, form)
        tell_problems(polled.problems, told)
        told = polled.problems
        if not interval:
            break
        time.sleep(interval)
    if polled.problems:
        raise refuse(f"{len(polled.problems)} problem(s) with {polled.files} file(s); what could be read was recorded")
    if not polled.receipts:
        say(f"nothing new in {polled.files} file(s)", form)


def tell_receipts(receipts: Iterable[BatchReceipt], form: Format) -> None:
    """Say what was recorded."""
    for receipt in receipts:
        parts = {**receipt.no_usage, **receipt.quarantined}
        also = "".join(f", {count} {code}" for code, count in parts.items())
        say(f"{receipt.origin}: {receipt.events} of {receipt.rows} row(s) are usage{also}", form)


def tell_problems(problems: Iterable[str], told: Sequence[str]) -> None:
    """Say what went wrong, once, not at every look."""
    for problem in problems:
        if problem not in told:
            notice(problem)


def status(context: typer.Context, form: FormatOption = Format.table) -> None:
    """List the files that are followed, up to where each was read, and what could not be."""
    with read_session(home_of(context).engine) as session:
        rows = [
            {
                "source": cursor.source,
                "file": cursor.path,
                "read_bytes": cursor.read_bytes,
                "read_lines": cursor.read_lines,
                "read_at": cursor.read_at.isoformat(timespec="seconds"),
                "problem": cursor.problem,
            }
            for cursor in metering.log_cursors(session)
        ]
    print_rows(STATUS, rows, form, empty="no log is followed yet; see: hourbook collect --help")


def tell_if_undescribed(home: Home, cluster: str) -> None:
    """Say that a cluster is read with defaults."""
    if cluster not in catalog_of(home).clusters:
        notice(
            f"cluster {cluster} is not described yet: defaults are used; describe it under [[clusters]] and apply that"
        )
