"""How fast usage is taken in over HTTP: a client in another process, every event on disk before its answer.

Three servers take turns on the same machine, all of the same shape (uvicorn, the same requests, groups that share a
commit, the same SQLite database with synchronous=FULL):

- Hourbook's own, without the jobs that run beside it, so that the figure is that of taking in alone;
- a floor, which only parses the JSON and commits the bytes as they came, with no key, check or column;
- Hourbook's with its jobs: what is taken in while all of it is also sealed into the lake.

Batches of 1,000 events come over a few connections, single events over 50. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from asyncio import StreamReader, StreamWriter, wrap_future
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine, func, text
from sqlmodel import select

from hourbook.api.app import create_app
from hourbook.database import create_home, open_home, read_session, run_write
from hourbook.gathering import Gathering
from hourbook.intake import GROUP_BYTES, WORKERS
from hourbook.keys import create_key
from hourbook.settings import Home, Settings
from metering.store import InboxBatchRow

Kind = Literal["hourbook", "floor", "with_jobs"]
BATCH = 1_000
BODIES = 100  # different ones, sent in turn
START_SECONDS = 60
ITEM = b'{"status":"accepted"}'


@dataclass(frozen=True)
class Load:
    """What the client sends, over how many connections, for how long."""

    batch: int
    connections: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """What came of a load."""

    events_per_second: float
    p50_ms: float
    p99_ms: float
    acknowledged: int
    client_cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0


def event(number: int) -> dict[str, Any]:
    """Return an ended job of a cluster, about as short as such an event can be."""
    minute, second = divmod(number % 3600, 60)
    return {
        "specversion": "1.0",
        "id": f"{number}:1795294603",
        "source": "slurm:hpc1",
        "type": "hourbook.usage.v1",
        "data": {
            "cluster": "hpc1",
            "partition": "gpu" if number % 5 == 0 else "cpu",
            "account": f"grp_{number % 300}",
            "user": f"user{number % 2000}",
            "state": "COMPLETED",
            "start": f"2026-11-{1 + number % 20:02}T04:{minute:02}:{second:02}+08:00",
            "end": f"2026-11-{1 + number % 20:02}T07:{minute:02}:{second:02}+08:00",
            "revision": 1,
            "resources": {"cpus": 4 * (number % 16 + 1), "nodes": 1}
            | ({"cards": {"a100": 1}} if number % 5 == 0 else {}),
        },
    }


def bodies(batch: int) -> list[bytes]:
    """Return bodies of so many events each."""
    firsts = range(0, BODIES * batch, batch)
    return [orjson.dumps([event(number) for number in range(first, first + batch)]) for first in firsts]


def floor_app(home: Home) -> FastAPI:
    """Make a server that only parses the JSON and commits the bytes."""
    app = FastAPI()

    def work(payloads: Sequence[bytes]) -> Sequence[int]:
        sizes = [len(orjson.loads(payload)) for payload in payloads]

        def insert(session: Any) -> None:  # noqa: ANN401
            session.connection().execute(text("INSERT INTO floor VALUES (:payload)"), {"payload": b"".join(payloads)})

        run_write(home.engine, insert)
        return sizes

    gathering: Gathering[bytes, int] = Gathering(work, workers=WORKERS, most=1_000, group=GROUP_BYTES)

    @app.post("/v1/events")
    async def take(request: Request) -> Response:
        payload = b"".join([part async for part in request.stream()])
        events = await wrap_future(gathering.submit(payload, len(payload)))
        answer = b'{"batch":1,"accepted":%d,"rejected":0,"items":[' % events + b",".join([ITEM] * events) + b"]}"
        return Response(answer, 202, media_type="application/json")

    return app


def serve(path: Path, kind: Kind, listening: socket.socket) -> None:
    """Serve a home; runs in a process of its own."""
    home = open_home(path, settings=Settings(database_url=""))
    app = floor_app(home) if kind == "floor" else create_app(home, Settings(database_url=""))
    config = uvicorn.Config(app, log_level="warning", lifespan="on" if kind == "with_jobs" else "off")
    uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def served(path: Path, kind: Kind) -> Iterator[tuple[int, int]]:
    """Serve a home in another process; yield its port and the process's number."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(512)
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(path, kind, listening))
        process.start()
        try:
            yield listening.getsockname()[1], process.pid or 0
        finally:
            process.terminate()
            process.join()


async def send(port: int, requests: Sequence[bytes], load: Load) -> Measured:
    """Send requests over all connections until the time is up; every answer must be 202."""
    latencies: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()
    ends = started + load.seconds

    async def one_connection(first: int) -> None:
        reader, writer = await connection(port)
        turn = first
        while time.perf_counter() < ends:
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            await answer(reader)
            latencies.append(time.perf_counter() - sent)
            turn += load.connections
        writer.close()

    await asyncio.gather(*(one_connection(first) for first in range(load.connections)))
    elapsed = time.perf_counter() - started
    ordered = sorted(latencies)
    done = len(ordered) * load.batch
    at = [ordered[int(len(ordered) * part)] * 1000 for part in (0.5, 0.99)]
    return Measured(done / elapsed, at[0], at[1], done, time.process_time() - cpu)


async def connection(port: int) -> tuple[StreamReader, StreamWriter]:
    """Connect as soon as the server listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def answer(reader: StreamReader) -> None:
    """Read one answer to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    if b" 202 " not in head[:16]:
        raise RuntimeError(f"refused: {body[:300]!r}")


def request(key: str, body: bytes) -> bytes:
    """Return a request as it goes over the wire."""
    kind = "application/cloudevents-batch+json" if body.startswith(b"[") else "application/cloudevents+json"
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def client(port: int, server: int, key: str, load: Load, results: Any) -> None:  # noqa: ANN401
    """Send a load; runs in a process of its own."""
    import uvloop

    sent = bodies(load.batch) if load.batch > 1 else [orjson.dumps(event(number)) for number in range(BATCH)]
    requests = [request(key, body) for body in sent]
    uvloop.run(send(port, requests, Load(load.batch, load.connections, 0.5)))  # warm
    before = cpu_seconds(server)
    measured = uvloop.run(send(port, requests, load))
    results.put(replace(measured, server_cpu_seconds=cpu_seconds(server) - before))


def cpu_seconds(process: int) -> float:
    """Return how long a process of this machine has kept its cores busy."""
    times = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def measure(path: Path, kind: Kind, key: str, load: Load) -> Measured:
    """Serve a home, send a load to it, and check that what was acknowledged is on disk."""
    before = recorded(path)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with served(path, kind) as (port, server):
        sender = context.Process(target=client, args=(port, server, key, load, results))
        sender.start()
        found: Measured = results.get(timeout=load.seconds + 2 * START_SECONDS)
        sender.join()
    if kind != "floor" and recorded(path) - before < found.acknowledged:
        raise RuntimeError(f"{found.acknowledged} events were acknowledged, {recorded(path) - before} are recorded")
    return found


def recorded(path: Path) -> int:
    """Return how many events a home ever accepted."""
    home = open_home(path, settings=Settings(database_url=""))
    with read_session(home.engine) as session:
        found = session.exec(select(func.coalesce(func.sum(InboxBatchRow.events), 0))).one()
    home.close()
    return int(found)


def make_home(path: Path) -> str:
    """Make a home with a key that may send usage, and the floor's table in the same database."""
    home = create_home(path, settings=Settings(database_url=""))
    key = run_write(home.engine, lambda session: create_key(session, "collector", datetime.now(UTC)))
    _execute(home.engine, "CREATE TABLE floor (payload BLOB) STRICT")
    home.close()
    return key


def _execute(engine: Engine, statement: str) -> None:
    run_write(engine, lambda session: session.connection().execute(text(statement)))


def main() -> None:
    """Measure in turns, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4, help="for batches")
    arguments = parser.parse_args()
    loads = {
        "batches": Load(BATCH, arguments.connections, arguments.seconds),
        "single": Load(1, 50, arguments.seconds),
    }
    found: dict[tuple[str, Kind], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            path = Path(folder) / f"home{turn}"
            key = make_home(path)
            for name, load in loads.items():
                kinds: tuple[Kind, ...] = (
                    ("floor", "hourbook", "with_jobs") if name == "batches" else ("floor", "hourbook")
                )
                for kind in kinds:
                    measured = measure(path, kind, key, load)
                    found.setdefault((name, kind), []).append(measured)
                    print(line(name, kind, measured))
    print(json.dumps(figures(found)))


def line(name: str, kind: Kind, measured: Measured) -> str:
    """Say what was measured; the time of cores tells something on a busy machine, too."""
    server, own = (
        seconds / measured.acknowledged * 1e6 for seconds in (measured.server_cpu_seconds, measured.client_cpu_seconds)
    )
    return (
        f"{name:8} {kind:10} {measured.events_per_second:10,.0f} events/s, p50 {measured.p50_ms:6.1f} ms, "
        f"p99 {measured.p99_ms:6.1f} ms; time of cores per event: server {server:.2f} us, client {own:.2f} us"
    )


def figures(found: dict[tuple[str, Kind], list[Measured]]) -> dict[str, float | int]:
    """Return the medians of all rounds."""

    def rate(name: str, kind: Kind) -> float:
        return round(statistics.median(one.events_per_second for one in found[name, kind]))

    def share(name: str) -> float:
        pairs = zip(found[name, "hourbook"], found[name, "floor"], strict=True)
        return round(statistics.median(ours.events_per_second / floor.events_per_second for ours, floor in pairs), 3)

    def p99(name: str) -> float:
        return round(statistics.median(one.p99_ms for one in found[name, "hourbook"]), 1)

    return {
        "events_per_second": rate("batches", "hourbook"),
        "floor_events_per_second": rate("batches", "floor"),
        "share_of_floor": share("batches"),
        "p99_ms": p99("batches"),
        "with_jobs_events_per_second": rate("batches", "with_jobs"),
        "single_events_per_second": rate("single", "hourbook"),
        "single_floor_events_per_second": rate("single", "floor"),
        "single_share_of_floor": share("single"),
        "single_p99_ms": p99("single"),
        "event_bytes": len(orjson.dumps(event(1))),
        "cores": len(os.sched_getaffinity(0)),
    }


if __name__ == "__main__":
    main()
