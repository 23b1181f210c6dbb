"""`event show | amend | retract | revert | backfill`, and `runaways list | accept`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from base.money import decimal_text, minor_digits
from hourbook.amending import SHOWN, Spoken, backfill, say_word
from hourbook.backfilling import BackfillFile, read_backfill
from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, Section, notice, print_rows, print_sections, refusals, say
from hourbook.cli.reading import read_day, read_words, read_zone
from hourbook.database import read_session
from hourbook.event_bills import BilledShare
from hourbook.event_history import HELD, EventHistory, Revision, event_history
from hourbook.importing import EventFileError
from hourbook.refreshing import refresh
from hourbook.runaways import RunawayError, accept_runaways, open_attempts
from metering.amendments import FIELDS, AmendmentRefusedError, UnknownEventError, Word
from metering.collectors.common import LogFileError
from metering.collectors.registry import OptionsError

group = typer.Typer(help="One usage event: follow it, and say what is wrong with it.", no_args_is_help=True)
runaways = typer.Typer(help="Attempts that nobody ended: list them, accept what is counted.", no_args_is_help=True)

Source = Annotated[str, typer.Argument(parser=read_words, metavar="SOURCE", help="Who says so, as slurm:hpc1.")]
EventId = Annotated[str, typer.Argument(parser=read_words, metavar="ID", help="As 4711:1795294603.")]
Reason = Annotated[str, typer.Option(parser=read_words, metavar="TEXT", help="Why; kept for ever.")]
By = Annotated[str, typer.Option("--by", parser=read_words, metavar="NAME", help="Who says so; kept for ever.")]
Yes = Annotated[bool, typer.Option("--yes", help="Record it; without, only its effect is shown.")]

REVISIONS = (
    *(
        "revision",
        "status",
        "state",
        "start",
        "end",
        "cpus",
        "nodes",
        "cards",
        "account",
        "user",
        "recorded_as",
        "came",
    ),
    *("by", "reason"),
)
BILLED = ("charged_in", "document", "month", "customer", "project", "user", "sku", "quantity", "unit", "amount")
TOLD = {HELD: "held by a word"}
EFFECT = ("month", "status", *SHOWN)
RUNAWAYS = ("kind", "source", "id", "cluster", "account", "user", "cpus", "cards", "start", "counted_until", "waived")
PLACES = 6


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("show", epilog="Example: hourbook event show slurm:hpc1 4711:1795294603")(show)
    group.command(
        "amend",
        epilog="Example: hourbook event amend slurm:hpc1 4711:1795294603 --set cpus=64 --reason 'ticket 88' --by lin",
    )(amend)
    group.command(
        "retract", epilog="Example: hourbook event retract slurm:hpc1 4711:1795294603 --reason test --by lin --yes"
    )(retract)
    group.command(
        "revert", epilog="Example: hourbook event revert slurm:hpc1 4711:1795294603 --reason 'was right' --by lin --yes"
    )(revert)
    group.command("backfill", epilog="Example: hourbook event backfill lost.jsonl --reason 'disk lost' --by lin")(
        backfill_file
    )
    app.add_typer(group, name="event")
    runaways.command("list", epilog="Example: hourbook runaways list --format csv")(runaways_list)
    runaways.command("accept", epilog="Example: hourbook runaways accept --cluster hpc1 --reason checked --by lin")(
        runaways_accept
    )
    app.add_typer(runaways, name="runaways")


def show(
    context: typer.Context,
    source: Source,
    event_id: EventId,
    start_date: Annotated[
        date | None,
        typer.Option(
            "--date", parser=read_day, metavar="DAY", help="On which it starts, in UTC: faster in a big lake."
        ),
    ] = None,
    form: FormatOption = Format.table,
) -> None:
    """Show everything recorded of one event, what became of each row, and what it was billed as."""
    home = home_of(context)
    refresh(home)
    with refusals(UnknownEventError), read_session(home.engine) as session:
        found = event_history(home, session, source, event_id, start_date=start_date)
    print_sections(_sections(found, form), form)
    if any(one.status == HELD for one in found.revisions):
        say("what is held by a word of the operator counts again once that is taken back: hourbook event revert", form)


def _sections(found: EventHistory, form: Format) -> Iterable[Section]:
    columns = REVISIONS if form is Format.table else (*REVISIONS, "evidence")
    rows = [_revision_row(one) for one in found.revisions]
    if form is Format.table:
        rows = [{**row, "status": TOLD.get(row["status"], row["status"])} for row in rows]
    yield Section("revisions", f"{found.id} of {found.source}", columns, rows)
    if found.quarantined:
        yield Section("quarantine", "in quarantine", ("id", "code", "status", "message"), found.quarantined)
    yield Section("billed", "billed as", BILLED, [billed_row(one) for one in found.billed], "nothing is charged")


def _revision_row(one: Revision) -> dict[str, Any]:
    said = one.evidence
    return {
        **one.usage,
        "revision": one.name,
        "status": one.status,
        "start": one.start.isoformat(),
        "end": one.end.isoformat() if one.usage["ended"] else f"runs; known until {one.end.isoformat()}",
        "recorded_as": one.recorded_seq,
        "came": one.origin,
        "by": said.get("by", "") if one.word else "",
        "reason": said.get("reason", "") if one.word else "",
        "evidence": json.dumps(said, ensure_ascii=False),
    }


def billed_row(one: BilledShare) -> dict[str, str]:
    """Write the event's part of a line for a reader; amounts and hours with six decimals at most."""
    return {
        "charged_in": one.charged_in or "blocked",
        "document": one.document or one.blocked or "not issued yet",
        "month": one.original_month,
        "customer": one.customer,
        "project": one.project,
        "user": one.user,
        "sku": one.sku,
        "quantity": decimal_text(one.quantity, PLACES),
        "unit": one.unit,
        "amount": decimal_text(one.amount / 10 ** minor_digits(one.currency), PLACES),
    }


def amend(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    source: Source,
    event_id: EventId,
    reason: Reason,
    by: By,
    changes: Annotated[
        list[str], typer.Option("--set", metavar="FIELD=VALUE", help=f"One of {', '.join(FIELDS)}; may be repeated.")
    ],
    yes: Yes = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Say how an event really was. It counts before all that its source says, until it is reverted."""
    with refusals(AmendmentRefusedError):
        word = Word("amend", reason, by, read_sets(changes))
    _say(context, (source, event_id), word, yes=yes, form=form)


def read_sets(changes: Iterable[str]) -> dict[str, str]:
    """Read `cpus=64`, or refuse it as wrong use."""
    read: dict[str, str] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals or name in read:
            raise typer.BadParameter(f"{text!r} is no FIELD=VALUE, or sets one twice", param_hint="'--set'")
        read[name] = value
    return read


def retract(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    source: Source,
    event_id: EventId,
    reason: Reason,
    by: By,
    yes: Yes = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Say that an event was no usage: it counts nothing, whatever its source says, until that is reverted."""
    with refusals(AmendmentRefusedError):
        word = Word("retract", reason, by)
    _say(context, (source, event_id), word, yes=yes, form=form)


def revert(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    source: Source,
    event_id: EventId,
    reason: Reason,
    by: By,
    yes: Yes = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Take back all that the operator said about an event: what its source says counts again."""
    with refusals(AmendmentRefusedError):
        word = Word("revert", reason, by)
    _say(context, (source, event_id), word, yes=yes, form=form)


def _say(context: typer.Context, key: tuple[str, str], word: Word, *, yes: bool, form: Format) -> None:
    home = home_of(context)
    with refusals(AmendmentRefusedError, UnknownEventError):
        said = say_word(home, *key, word, dry_run=not yes)
    _tell(said, form)
    if not yes:
        notice("nothing was recorded; say it again with --yes to record it")
    elif form is Format.table:
        say(f"recorded; follow it with: hourbook event show '{key[0]}' '{key[1]}'", style="dim")


def _tell(said: Spoken, form: Format) -> None:
    rows = [
        {"month": one.month, "status": "closed" if one.closed else "open"}
        | {name: f"{one.before[name]} → {one.after[name]}" for name in SHOWN}
        for one in said.effects
    ]
    machine = [
        {"month": one.month, "status": "closed" if one.closed else "open", **one.difference} for one in said.effects
    ]
    print_rows(EFFECT, rows if form is Format.table else machine, form, empty="no hours change")
    for month in said.adjusts:
        say(f"{month} is closed: the change is an adjustment on the next document", form)


def backfill_file(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CloudEvents, or CSV with --options.")],
    reason: Reason,
    by: By,
    cluster: Annotated[str, typer.Option(help="Of a CSV: whose usage it is.")] = "",
    options: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Of a CSV: the TOML that maps its columns.")
    ] = None,
    timezone: Annotated[
        ZoneInfo | None, typer.Option(parser=read_zone, metavar="ZONE", help="Of a CSV: of times without a zone.")
    ] = None,
    yes: Yes = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Bring in usage that no log holds, marked as such. A file with anything that cannot be used is refused whole."""
    if file.name.lower().endswith(".csv") and not (cluster and options):
        raise typer.BadParameter("a CSV needs --cluster NAME and --options FILE.toml", param_hint="'--options'")
    home = home_of(context)
    given = BackfillFile(file, cluster, options, timezone)
    with refusals(AmendmentRefusedError, EventFileError, LogFileError, OptionsError):
        said = backfill(home, read_backfill(home, given), Word("backfill", reason, by), dry_run=not yes)
    _tell(said, form)
    say(f"{said.events} event(s) {'recorded' if yes else 'would be recorded; say it again with --yes'}", form)


def runaways_list(context: typer.Context, form: FormatOption = Format.table) -> None:
    """List attempts counted up to their time limit because nobody ended them, and those that fell silent."""
    home = home_of(context)
    refresh(home)
    with read_session(home.engine) as session:
        found = open_attempts(home, session)
    rows = [{name: str(getattr(one, name)) for name in RUNAWAYS} for one in found]
    print_rows(RUNAWAYS, rows, form, empty="no attempt runs beyond its limit, and none fell silent")


def runaways_accept(
    context: typer.Context,
    reason: Reason,
    by: By,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Of one runaway.")] = "",
    event_id: Annotated[str, typer.Argument(metavar="ID", help="Of one runaway.")] = "",
    cluster: Annotated[str, typer.Option(help="All of a cluster that are undecided.")] = "",
) -> None:
    """Accept what is counted of runaways, so that they do not block a close; an end that comes later still counts."""
    if bool(source and event_id) == bool(cluster) or bool(source) != bool(event_id):
        raise typer.BadParameter("name one runaway by SOURCE and ID, or a --cluster")
    home = home_of(context)
    refresh(home)
    chosen = (source, event_id) if source else None
    with refusals(RunawayError):
        found = accept_runaways(home, chosen, cluster=cluster, reason=reason, by=by)
    say(f"{len(found)} runaway(s) accepted as counted")
