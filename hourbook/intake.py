"""Usage that arrives over HTTP: requests that wait at the same time are read together and share one commit."""

from __future__ import annotations

import hashlib
import secrets
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock

from hourbook.database import read_session
from hourbook.errors import InvalidRequestError, MalformedError, TooLargeError
from hourbook.gathering import Gathering, Room
from hourbook.importing import accept_batches
from hourbook.runaways import capped
from hourbook.settings import Home, Settings
from metering.cloud_event_bodies import BLANK, Format, Parsed, TooManyEventsError, parse
from metering.cloud_events import Read, Refused, read_bodies, within
from metering.events import Collected, RejectedEvent
from metering.store import BatchReceipt, IncomingBatch

MAX_BYTES = 16 * 1024 * 1024
MAX_EVENTS = 10_000
GROUP_BYTES = 4 * 1024 * 1024  # of bodies that are read together, unless one alone is larger
WORKERS = 2
KIND = "cloud_events"
GZIP_SIZE_BYTES = 4  # at the end: how long it is unpacked, modulo 2^32
GZIP_WINDOW = 31
MIB = 1024 * 1024


@dataclass(frozen=True)
class Submission:
    """A body as it arrived."""

    payload: bytes
    format: Format
    gzipped: bool
    key_id: str
    opening: bytes  # with what it must begin; nothing where it may be anything
    clusters: tuple[str, ...] = ()  # the only ones that the key reports of; none for any


@dataclass(frozen=True)
class Outcome:
    """What became of a body, once it is on disk."""

    batch: int
    rows: int
    refused: Sequence[Refused]


class Intake:
    """Takes bodies of events in, durably, up to what memory and the sealer can bear."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.home = home
        self.room = Room(settings.ingest_waiting_mib * MIB)
        self._most_unsealed = settings.ingest_unsealed_events
        # One commit at a time: waiting here costs nothing, waiting for the database's lock is asking again and again.
        self._writing = Lock()
        self._gathering: Gathering[Submission, Outcome] = Gathering(
            self._take_in, workers=WORKERS, most=settings.ingest_waiting_requests, group=GROUP_BYTES
        )

    def submit(self, submission: Submission) -> Future[Outcome]:
        """Take a body in; the answer comes when it is on disk."""
        return self._gathering.submit(submission, _unpacked_size(submission))

    def _take_in(self, submissions: Sequence[Submission]) -> Sequence[Outcome | Exception]:
        bodies = [_read(submission) for submission in submissions]
        good = [at for at, body in enumerate(bodies) if isinstance(body, Parsed)]
        results: list[Outcome | Exception] = [body for body in bodies if isinstance(body, Exception)]
        if not good:
            return results
        parsed = [body for body in bodies if isinstance(body, Parsed)]
        reported = [submissions[at].clusters for at in good]
        read = within(read_bodies(parsed, self.home.now()), parsed, reported)
        receipts = self._record(read, [submissions[at] for at in good])
        outcomes = iter(
            Outcome(receipt.batch_seq, read.rows(number), read.refused[number])
            for number, receipt in enumerate(receipts)
        )
        return [body if isinstance(body, Exception) else next(outcomes) for body in bodies]

    def _record(self, read: Read, submissions: Sequence[Submission]) -> Sequence[BatchReceipt]:
        """Record what was read, a batch for each key, in one commit; return the receipt of each submission."""
        keys = list(dict.fromkeys(submission.key_id for submission in submissions))
        batches = []
        for key in keys:
            mine = [number for number, submission in enumerate(submissions) if submission.key_id == key]
            digest = _digest(submissions[number].payload for number in mine)
            origin = f"{key}:{secrets.token_hex(8)}"
            collected = self._capped(read.collected(mine))
            batches.append(IncomingBatch.of(collected, kind=KIND, origin=origin, digest=digest))
        with self._writing:
            receipts = accept_batches(self.home, batches, most_unsealed=self._most_unsealed)
        return [receipts[keys.index(submission.key_id)] for submission in submissions]

    def _capped(self, collected: Collected) -> Collected:
        """Count runaways up to their cap; attempts that have ended are none."""
        if collected.events["ended"].all():
            return collected
        with read_session(self.home.engine) as session:
            return replace(collected, events=capped(session, collected.events))


def _unpacked_size(submission: Submission) -> int:
    """Return how long a body is, unpacked, by its own word."""
    if not submission.gzipped:
        return len(submission.payload)
    return int.from_bytes(submission.payload[-GZIP_SIZE_BYTES:], "little")


def _read(submission: Submission) -> Parsed | Exception:
    """Unpack a body and take it apart; the refusal, where it is no batch at all, is for its sender alone."""
    try:
        payload = _unpack(submission) if submission.gzipped else submission.payload
        _check_opening(payload, submission.opening)
        parsed = parse(payload, submission.format, MAX_EVENTS)
    except TooManyEventsError as error:
        return TooLargeError(str(error))
    except (MalformedError, InvalidRequestError, TooLargeError) as error:
        return error
    if isinstance(parsed, RejectedEvent):
        return MalformedError(parsed.message)
    return parsed if parsed.rows else InvalidRequestError("there is no event in the body")


def _check_opening(payload: bytes, opening: bytes) -> None:
    first = payload.lstrip(BLANK)[:1]
    if not first:
        raise MalformedError("the body is empty; send CloudEvents")
    if opening and first not in b"{[":
        raise MalformedError("the body is no JSON object and no array; send CloudEvents")
    if opening and first not in opening:
        raise InvalidRequestError(f"a body of this type begins with {opening.decode()}, not with {first.decode()}")


def _unpack(submission: Submission) -> bytes:
    """Unpack a gzip body, and no more of it than is taken."""
    said = _unpacked_size(submission)
    if said > MAX_BYTES:
        raise _too_large()
    unpacker = zlib.decompressobj(GZIP_WINDOW)
    try:
        payload = unpacker.decompress(submission.payload, MAX_BYTES + 1)
    except zlib.error as error:
        raise MalformedError(f"the body is no gzip: {error}; pack it again") from error
    if len(payload) > MAX_BYTES:
        raise _too_large()
    if not unpacker.eof or unpacker.unused_data or len(payload) != said:
        raise MalformedError("the gzip body is cut off, or more follows it; send it whole, in one part")
    return payload


def _too_large() -> TooLargeError:
    return TooLargeError(f"unpacked, the body is longer than {MAX_BYTES:,} bytes; send it in parts")


def _digest(payloads: Iterable[bytes]) -> str:
    """Return the SHA-256 of what arrived, as it arrived."""
    digest = hashlib.sha256()
    for payload in payloads:
        digest.update(payload)
    return digest.hexdigest()
