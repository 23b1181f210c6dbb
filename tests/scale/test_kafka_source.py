"""A topic of CloudEvents on a real broker: every message is counted once, whatever is killed and whoever reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hourbook.crash import CRASH_VARIABLE
from hourbook.database import open_home, read_session
from hourbook.kafka_source import KafkaSourceError, Topic, open_topic
from metering import store as metering
from metering.collectors.kafka_messages import begin_at
from metering.lake import EventLake
from tests.hourbook.cli_stories import Terminal, fresh
from tests.hourbook.served import usage_event
from tests.kafka_broker import QUICK, Broker, Written, running_broker
from tests.serving import COMMAND

pytestmark = pytest.mark.slow  # to join a group takes its time

PARTITIONS = 3
SECONDS = 60


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running_broker() as made:
        yield made


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("HOURBOOK_DATABASE_URL", raising=False)
    made = fresh(tmp_path)
    (tmp_path / "quick.toml").write_text("".join(f'"{name}" = {value}\n' for name, value in QUICK.items()), "utf-8")
    return made


def events(*numbers: int) -> list[Written]:
    return [(number % PARTITIONS, json.dumps(usage_event(number)).encode(), {}) for number in numbers]


def collect(terminal: Terminal, broker: Broker, topic: str, *more: str) -> list[str]:
    """Return the command that reads a topic."""
    settings = terminal.home.parent / "quick.toml"
    wanted = ["--topic", topic, "--servers", broker.servers, "--settings", str(settings)]
    return ["collect", "kafka", *wanted, *more]


def counted(terminal: Terminal) -> list[str]:
    """Return the events in the lake, sorted, each as often as it is there."""
    terminal.done("usage", "--from", "2026-11-01", "--to", "2026-11-30")
    home = open_home(terminal.home)
    ids: list[str] = EventLake(home.lake).scan().collect()["id"].to_list()
    home.close()
    return sorted(ids)


def names(*numbers: int) -> list[str]:
    return sorted(f"job-{number}" for number in numbers)


def test_a_topic_is_read_once_and_then_only_what_is_new(terminal: Terminal, broker: Broker) -> None:
    topic = broker.new_topic(PARTITIONS)
    broker.write(topic, events(*range(30)))
    assert "usage" in terminal.done(*collect(terminal, broker, topic, "--once")).out
    assert counted(terminal) == names(*range(30))
    assert "nothing new" in terminal.done(*collect(terminal, broker, topic, "--once")).out
    broker.write(topic, events(30, 31))
    # Under another name the broker remembers nothing; the database does.
    terminal.done(*collect(terminal, broker, topic, "--once", "--group", "others"))
    assert counted(terminal) == names(*range(32))
    followed = terminal.done("collect", "status", "--format", "csv").rows()
    assert [(row["file"], row["read_lines"]) for row in followed] == [
        (f"{topic}/0", "11"),
        (f"{topic}/1", "11"),
        (f"{topic}/2", "10"),
    ]


def test_bad_messages_stand_in_quarantine_with_their_place(terminal: Terminal, broker: Broker) -> None:
    topic = broker.new_topic(1)
    broker.write(topic, [(0, b"{oops", {}), (0, json.dumps(usage_event(1)).encode(), {}), (0, None, {})])
    out = terminal.done(*collect(terminal, broker, topic, "--once")).out
    assert "1 of 3 message(s) are usage, 1 tombstone, 1 not_json" in " ".join(out.split())
    (entry,) = terminal.done("quarantine", "list", "--format", "csv").rows()
    assert entry["message"].startswith(f"{topic}, partition 0, offset 0: ")
    assert counted(terminal) == names(1)


def test_a_topic_made_anew_is_read_from_its_start(terminal: Terminal, broker: Broker) -> None:
    topic = broker.new_topic(1)
    broker.write(topic, [(0, json.dumps(usage_event(n)).encode(), {}) for n in range(5)])
    terminal.done(*collect(terminal, broker, topic, "--once"))
    broker.drop_topic(topic)
    broker.new_topic(1, topic)
    broker.write(topic, [(0, json.dumps(usage_event(n)).encode(), {}) for n in range(50, 55)])
    terminal.done(*collect(terminal, broker, topic, "--once"))
    assert counted(terminal) == names(*range(5), *range(50, 55))


def test_messages_deleted_unread_block_the_close_until_someone_decides(
    terminal: Terminal, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = broker.new_topic(1)
    broker.write(topic, [(0, json.dumps(usage_event(n)).encode(), {}) for n in range(3)])
    terminal.done(*collect(terminal, broker, topic, "--once"))
    broker.write(topic, [(0, json.dumps(usage_event(n)).encode(), {}) for n in range(3, 8)])
    # This broker deletes nothing; what one says that has deleted the messages up to 5 is put into its mouth.
    monkeypatch.setattr("hourbook.kafka_source.begin_at", lambda known, _first: begin_at(known, 5))
    home = open_home(terminal.home)
    told: list[str] = []
    for _ in range(2):  # nor are they told of twice
        wanted = Topic(topic, broker.servers, settings=QUICK)
        with open_topic(home, wanted, told.append) as reader:
            receipts = (one for one in reader.batches() if one or reader.reads)
            next(receipts)
    with read_session(home.engine) as session:
        (entry,) = metering.quarantine(session, status="open")
        assert entry.code == "messages_lost"
        assert f"{topic}, partition 0, offsets 3 to 4" in entry.message
    assert len(told) == 1
    home.close()


@pytest.mark.parametrize("point", ["kafka:before_commit", "kafka:after_commit"])
def test_killed_between_database_and_broker_nothing_is_lost_or_doubled(
    terminal: Terminal, broker: Broker, point: str
) -> None:
    topic = broker.new_topic(PARTITIONS)
    broker.write(topic, events(*range(40)))
    command = [*COMMAND, "--home", str(terminal.home), *collect(terminal, broker, topic, "--once")]
    killed = subprocess.run(command, env={**os.environ, CRASH_VARIABLE: point}, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    terminal.done(*collect(terminal, broker, topic, "--once"))
    assert counted(terminal) == names(*range(40))


def test_collectors_of_one_group_share_a_topic_and_one_may_be_killed(terminal: Terminal, broker: Broker) -> None:
    topic = broker.new_topic(PARTITIONS)
    command = [*COMMAND, "--home", str(terminal.home), *collect(terminal, broker, topic)]
    with ExitStack() as stack:
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        for one in running:
            stack.callback(one.wait)
            stack.callback(one.kill)
        written = 0
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and written < 3000:
            broker.write(topic, events(*range(written, written + 100)))
            written += 100
            if written == 1500:
                running[0].send_signal(signal.SIGKILL)
            time.sleep(0.2)
        while time.monotonic() < deadline and len(set(accepted(terminal))) < written:
            time.sleep(0.5)
    assert sorted(set(counted(terminal))) == names(*range(written))
    usage = terminal.done("usage", "--from", "2026-11-01", "--to", "2026-11-30", "--format", "csv").rows()
    assert usage[0]["jobs"] == str(written), "read again or not, each counts once"


def accepted(terminal: Terminal) -> list[str]:
    home = open_home(terminal.home)
    with read_session(home.engine) as session:
        waiting = metering.unsealed(session, 10**9)
        ids = [name for batch in waiting for name in metering.batch_events(batch)["id"]]
    home.close()
    return ids


def test_what_cannot_be_reached_is_named(terminal: Terminal, broker: Broker, tmp_path: Path) -> None:
    missing = terminal(*collect(terminal, broker, "no-such-topic", "--once"))
    assert missing.code == 1
    assert "has no topic no-such-topic" in " ".join(missing.err.split())
    own = tmp_path / "own.toml"
    own.write_text('"enable.auto.commit" = true\n', "utf-8")
    wanted = ["collect", "kafka", "--topic", "x", "--servers", broker.servers, "--settings", str(own), "--once"]
    refused = terminal(*wanted)
    assert refused.code == 1
    assert "Hourbook keeps its own account" in " ".join(refused.err.split())


def test_unknown_settings_of_the_client_are_refused(terminal: Terminal, broker: Broker) -> None:
    home = open_home(terminal.home)
    topic = Topic("usage", broker.servers, settings={"no.such.setting": 1})
    with pytest.raises(KafkaSourceError, match=r"no\.such\.setting"), open_topic(home, topic, print):
        pass
    home.close()
