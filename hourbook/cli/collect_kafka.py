"""`collect kafka`: read a topic of CloudEvents."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy.exc import SQLAlchemyError

from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, notice, refuse, say
from hourbook.cli.reading import read_words
from hourbook.refreshing import refresh
from hourbook.settings import Home
from metering.store import BatchReceipt

if TYPE_CHECKING:
    from hourbook.kafka_source import Topic

REST_SECONDS = 5.0
JOIN_SECONDS = 120.0  # with --once: how long the group may take to give out its partitions


def register(group: typer.Typer) -> None:
    """Add the command."""
    example = "Example: hourbook collect kafka --topic usage --servers broker1:9092,broker2:9092"
    group.command("kafka", epilog=example)(kafka)


def read_settings(path: Path | None) -> dict[str, Any]:
    """Read the client's settings from TOML, `"security.protocol" = "SASL_SSL"`, or refuse them as wrong use."""
    if path is None:
        return {}
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} is no TOML: {error}", param_hint="'--settings'") from error
    if wrong := [name for name, value in said.items() if not isinstance(value, str | int)]:
        text = f'{path}: {wrong[0]} is no setting; write names with dots in quotes, as "security.protocol" = "SASL_SSL"'
        raise typer.BadParameter(text, param_hint="'--settings'")
    return said


def kafka(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    topic: Annotated[str, typer.Option(parser=read_words, metavar="NAME", help="Whose messages are CloudEvents.")],
    servers: Annotated[str, typer.Option(parser=read_words, metavar="HOST:PORT,…", help="Brokers to begin with.")],
    group: Annotated[
        str, typer.Option(parser=read_words, metavar="NAME", help="Collectors of one group share the partitions.")
    ] = "hourbook",
    settings: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML with more settings of the client, such as its password."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Read what there is, and end.")] = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Read a Kafka topic of CloudEvents; what cannot be used goes to quarantine with its partition and offset."""
    try:
        from hourbook.kafka_source import KafkaSourceError, Topic
    except ImportError as error:
        raise refuse("reading Kafka needs the extra kafka: pip install 'hourbook[kafka]'") from error
    home = home_of(context)
    try:
        wanted = Topic(topic, servers, group, read_settings(settings))
        if once:
            _read_once(home, wanted, form)
            return
        _read_for_ever(home, wanted, form)
    except KafkaSourceError as error:
        raise refuse(str(error)) from error


def _read_once(home: Home, topic: Topic, form: Format) -> None:
    from hourbook.kafka_source import KafkaSourceError, open_topic

    read, deadline = 0, time.monotonic() + JOIN_SECONDS
    with open_topic(home, topic, notice) as reader:
        for receipt in reader.batches():
            read += _tell(receipt, form)
            if receipt is None and reader.reads and not reader.behind():
                break
            if not reader.reads and time.monotonic() > deadline:
                raise KafkaSourceError(
                    f"{topic.name}: group {topic.group} gave this collector no partition to read; others have them all?"
                )
    refresh(home)
    if not read:
        say(f"nothing new in {topic.name}", form)


def _read_for_ever(home: Home, topic: Topic, form: Format) -> None:
    from hourbook.kafka_source import KafkaSourceError, open_topic

    while True:
        try:
            with open_topic(home, topic, notice) as reader:
                for receipt in reader.batches():
                    _tell(receipt, form)
        except (KafkaSourceError, SQLAlchemyError, OSError) as error:
            # What was not recorded is read again by the next reader.
            notice(f"{error}; tried again in {REST_SECONDS:.0f} s")
            time.sleep(REST_SECONDS)


def _tell(receipt: BatchReceipt | None, form: Format) -> int:
    if receipt is None:
        return 0
    parts = {**receipt.no_usage, **receipt.quarantined}
    also = "".join(f", {count} {code}" for code, count in parts.items())
    say(f"{receipt.origin}: {receipt.events} of {receipt.rows} message(s) are usage{also}", form)
    return receipt.rows
