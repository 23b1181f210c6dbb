"""Slurm's accounting as it arrives over HTTP or is asked for: read by the pure collector, durable before it is told."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from hourbook.importing import accept_payload, catalog_of
from hourbook.settings import Home
from metering.clusters import Cluster
from metering.collectors.slurm import read_sacct
from metering.collectors.slurm_json import read_sacct_json
from metering.events import Collected
from metering.store import BatchReceipt

GZIP = 31  # zlib's word for gzip with its header


class UnknownClusterError(LookupError):
    """Usage of a cluster that is not described: its zone, cards and partitions are not known."""

    def __init__(self, cluster: str) -> None:
        super().__init__(
            f"cluster {cluster!r} is not described: add it under [[clusters]], run `hourbook apply`, and send again"
        )


class UnpackError(ValueError):
    """A compressed body that cannot be unpacked; the message says why."""


class UnpackedTooLargeError(ValueError):
    """A compressed body that is too long when unpacked."""


class RowsDifferError(ValueError):
    """A log whose rows are not as many as its sender counted."""

    def __init__(self, stated: int, read: int) -> None:
        super().__init__(
            f"the sender counts {stated:,} rows and {read:,} were read: nothing was recorded; pull it again"
        )


@dataclass(frozen=True)
class SlurmText:
    """What a file of rows does not say itself."""

    delimiter: str = "|"
    rows: int | None = None  # as its sender counted them


def unpacked(payload: bytes, limit: int) -> bytes:
    """Unpack gzip, whatever it holds, up to a limit; not a byte more is ever held in memory."""
    parts: list[bytes] = []
    left, rest = limit + 1, payload
    while rest and left > 0:
        machine = zlib.decompressobj(GZIP)
        try:
            part = machine.decompress(rest, left)
        except zlib.error as error:
            raise UnpackError(f"the gzip body cannot be unpacked ({error}); send it again") from error
        if not machine.eof and len(part) < left:
            raise UnpackError("the gzip body is cut off; send it again")
        parts.append(part)
        left, rest = left - len(part), machine.unused_data
    if left <= 0:
        raise UnpackedTooLargeError(f"the body is longer than {limit:,} bytes when unpacked; send it in parts")
    return b"".join(parts)


def accept_slurm_text(home: Home, cluster: str, payload: bytes, said: SlurmText, *, origin: str) -> BatchReceipt:
    """Record rows of `sacct -P`; they are on disk when this returns, and every row is accounted for."""
    return _accept(home, read_slurm_text(described_cluster(home, cluster), payload, said), payload, origin)


def accept_slurm_json(home: Home, cluster: str, payload: bytes, *, origin: str) -> BatchReceipt:
    """Record an answer of `sacct --json` or slurmrestd; it is on disk when this returns."""
    return _accept(home, read_sacct_json(payload, cluster=described_cluster(home, cluster)), payload, origin)


def read_slurm_text(cluster: Cluster, payload: bytes, said: SlurmText) -> Collected:
    """Read rows of `sacct -P`, as many as their sender counted."""
    collected = read_sacct(payload, cluster=cluster, delimiter=said.delimiter)
    if said.rows is not None and collected.rows != said.rows:
        raise RowsDifferError(said.rows, collected.rows)
    return collected


def described_cluster(home: Home, name: str) -> Cluster:
    """Return a cluster as it is described, or refuse one that is not."""
    cluster = catalog_of(home).clusters.get(name)
    if cluster is None:
        raise UnknownClusterError(name)
    return cluster


def _accept(home: Home, collected: Collected, payload: bytes, origin: str) -> BatchReceipt:
    return accept_payload(home, payload, collected, kind="slurm", origin=origin)
