"""A Kafka topic of CloudEvents, read into the inbox. The only module that knows Kafka's client.

A batch and the offsets behind it are committed together in the database, and only then told to the broker. So a
collector that was killed reads on exactly behind what is recorded; what the broker remembers serves its own figures
of lag. Several collectors of one group share the partitions of a topic.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import Message as Received
from confluent_kafka.admin import AdminClient
from sqlmodel import Session

from hourbook.crash import crash_point
from hourbook.database import read_session, run_write
from hourbook.importing import accept_in
from hourbook.settings import Home
from metering import store as metering
from metering.collectors.kafka_messages import Message, begin_at, lost, next_offsets, origin_of, read_messages
from metering.events import EVENT_SCHEMA, Collected
from metering.store import BatchReceipt, LogCursorRow

log = logging.getLogger(__name__)

KIND = "cloud_events"
BATCH_MESSAGES = 10_000
BATCH_BYTES = 16 * 2**20
BATCH_SECONDS = 1.0
STEP_MESSAGES = 500
STEP_SECONDS = 0.1
ANSWER_SECONDS = 30.0
# What is read is remembered here, and only once it is recorded; and nothing may be passed over without a word.
OWN_SETTINGS: Mapping[str, str | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
}


class KafkaSourceError(RuntimeError):
    """A topic cannot be read; the message says why and what to do."""


@dataclass(frozen=True)
class Topic:
    """Which topic is read, where, and as whom."""

    name: str
    servers: str
    group: str = "hourbook"
    settings: Mapping[str, str | int | bool] = field(default_factory=dict)  # of the client: security, timeouts, …

    def __post_init__(self) -> None:
        if refused := sorted(OWN_SETTINGS.keys() & self.settings.keys()):
            raise KafkaSourceError(f"{', '.join(refused)}: leave out; Hourbook keeps its own account of what it read")


@dataclass
class TopicReader:
    """A member of the group that reads a topic, beginning where the database says."""

    home: Home
    topic: Topic
    tell: Callable[[str], object]
    consumer: Consumer
    # Offsets of another cluster, or of a topic that was made anew under the same name, are of other messages.
    source: str = ""
    topic_id: str = ""
    at: dict[int, int] = field(default_factory=dict)  # partition -> offset from which it is read on

    def batches(self) -> Iterator[BatchReceipt | None]:
        """Record batch after batch, each durable when it is returned; None where nothing new came in a while."""
        while True:
            messages = self._take()
            yield self._record(messages) if messages else None

    @property
    def reads(self) -> bool:
        """Whether the group has given it partitions to read."""
        return bool(self.consumer.assignment())

    def behind(self) -> bool:
        """Tell whether its partitions hold more than was read."""
        places = [one for one in self.consumer.assignment() if one.partition in self.at]
        ends = [self.consumer.get_watermark_offsets(place, timeout=ANSWER_SECONDS)[1] for place in places]
        return any(self.at[place.partition] < end for place, end in zip(places, ends, strict=True))

    def _take(self) -> list[Message]:
        """Wait for messages, and return what there is, up to the size of a batch."""
        taken: list[Message] = []
        size, deadline = 0, time.monotonic() + BATCH_SECONDS
        while len(taken) < BATCH_MESSAGES and size < BATCH_BYTES and time.monotonic() < deadline:
            step = [
                message for one in self.consumer.consume(STEP_MESSAGES, STEP_SECONDS) for message in self._read(one)
            ]
            if taken and not step:
                break
            taken += step
            size += sum(len(message.value or b"") for message in step)
        return taken

    def _read(self, received: Received) -> Iterator[Message]:
        error = received.error()
        if error is None:
            yield Message(
                received.partition() or 0, received.offset() or 0, _bytes(received.value()), _headers(received)
            )
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - the client's public name of it
            self._read_again(received.partition() or 0)
            raise KafkaSourceError(f"{self.topic.name}: the broker lost what lay where reading went on; begin again")
        elif error.fatal() or not error.retriable():
            raise KafkaSourceError(f"{self.topic.name}: {error.str()}")

    def _record(self, messages: list[Message]) -> BatchReceipt:
        """Commit a batch with the offsets behind it, then tell the broker."""
        name, offsets = self.topic.name, next_offsets(messages)
        collected = read_messages(name, messages, self.home.now())
        payload = b"\n".join(message.value or b"" for message in messages)

        def work(session: Session) -> BatchReceipt:
            self._remember(session, offsets)
            receipt = accept_in(session, self.home, payload, collected, kind=KIND, origin=origin_of(name, messages))
            crash_point("kafka:before_commit")
            return receipt

        receipt = run_write(self.home.engine, work)
        crash_point("kafka:after_commit")
        self.at |= offsets
        # Whoever lost its partitions meanwhile may not commit; who has them now reads the same, to no effect.
        with suppress(KafkaException):
            self.consumer.commit(offsets=self._places(offsets), asynchronous=False)
        return receipt

    def begin(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start partitions that were assigned where the database says, and record what was deleted meanwhile."""
        known = self._known()
        starts = {}
        for one in partitions:
            first, _ = consumer.get_watermark_offsets(one, timeout=ANSWER_SECONDS)
            starts[one.partition], deleted = begin_at(known.get(one.partition), first)
            if deleted:
                start = starts[one.partition]
                self._record_deleted(one.partition, start - deleted, start)
        self.at |= starts
        consumer.assign(self._places(starts))

    def _record_deleted(self, partition: int, first: int, end: int) -> None:
        """Put messages that nobody can read any more into quarantine, where they hold up the close until decided."""
        refused = lost(self.topic.name, partition, first, end)
        gone = Collected(EVENT_SCHEMA.to_frame(), (refused,), {})

        def work(session: Session) -> None:
            self._remember(session, {partition: end})
            accept_in(session, self.home, b"", gone, kind=KIND, origin=f"{self.topic.name} {partition}: deleted")

        run_write(self.home.engine, work)
        self.tell(f"{refused.message}; see: hourbook quarantine list")

    def _read_again(self, partition: int) -> None:
        """Read a partition from its first message, as the broker has lost its end; what is known is a duplicate."""
        run_write(self.home.engine, lambda session: self._remember(session, {partition: 0}, anew=True))

    def _known(self) -> dict[int, int]:
        with read_session(self.home.engine) as session:
            return self._offsets(session)

    def _offsets(self, session: Session) -> dict[int, int]:
        """Return up to where each partition was read; a topic that was made anew has not been read at all."""
        kept = [one for one in metering.log_cursors(session, self.source) if one.marks == self.topic_id]
        places = [(*one.path.rpartition("/"), one.position) for one in kept]
        return {int(number): int(position) for name, _, number, position in places if name == self.topic.name}

    def _remember(self, session: Session, offsets: Mapping[int, int], *, anew: bool = False) -> None:
        known = self._offsets(session)
        for partition, offset in offsets.items():
            # A collector that was slow, whose partitions another has by now, must not turn that one's account back.
            position = offset if anew else max(offset, known.get(partition, 0))
            metering.save_log_cursor(session, self._cursor(partition, position))

    def _cursor(self, partition: int, position: int) -> LogCursorRow:
        return LogCursorRow(
            source=self.source,
            path=f"{self.topic.name}/{partition}",
            marks=self.topic_id,
            read_bytes=0,
            read_lines=position,
            head_bytes=0,
            head_digest="",
            tail_digest="",
            position=str(position),
            read_at=self.home.now(),
        )

    def _places(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic.name, partition, offset) for partition, offset in offsets.items()]


@contextmanager
def open_topic(home: Home, topic: Topic, tell: Callable[[str], object]) -> Iterator[TopicReader]:
    """Join the group that reads a topic; whatever fails is named, and reading may begin again with a new reader."""
    account = {"bootstrap.servers": topic.servers, "group.id": topic.group}
    try:
        consumer = Consumer({**account, **topic.settings, **OWN_SETTINGS}, logger=log)
    except (KafkaException, ValueError, TypeError) as error:
        raise KafkaSourceError(f"the client's settings cannot be used: {_said(error)}") from error
    try:
        reader = TopicReader(home, topic, tell, consumer)
        reader.source = f"kafka:{consumer.cluster_id(ANSWER_SECONDS)}"
        reader.topic_id = _id_of(topic)
        consumer.subscribe([topic.name], on_assign=reader.begin)
        yield reader
    except KafkaException as error:
        raise KafkaSourceError(f"{topic.name} on {topic.servers}: {_said(error)}") from error
    finally:
        consumer.close()


def _id_of(topic: Topic) -> str:
    """Return the id of a topic, which is another when it was deleted and made anew; refuse one that is not there."""
    admin = AdminClient({"bootstrap.servers": topic.servers, **topic.settings}, logger=log)
    (described,) = admin.describe_topics(TopicCollection([topic.name])).values()
    try:
        return str(described.result(ANSWER_SECONDS).topic_id)
    except KafkaException as error:
        text = (
            f"{topic.servers} has no topic {topic.name} that can be read ({_said(error)}); create it, or name another"
        )
        raise KafkaSourceError(text) from error


def _headers(received: Received) -> dict[str, bytes]:
    said = received.headers() or ()
    return {str(name): _bytes(value) or b"" for name, value in (said.items() if isinstance(said, dict) else said)}


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _said(error: Exception) -> str:
    about = error.args[0] if error.args else error
    return about.str() if isinstance(about, KafkaError) else str(error)
