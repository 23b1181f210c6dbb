"""A disk fills up, turns read-only or fails under a running server: 503 until it is mended, and nothing is lost."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.homes import NewHome

from .bad_disks import BadDisk, Shimmed, SizeLimit, bad_disks
from .load import CUSTOMER, event, note_acknowledged, note_sent
from .preforked import Child
from .served_home import NOW, Site, complaints, new_seed, site

POSTS = 20
ILL_SECONDS = 3  # long enough for the sealer and the accruer to have their turn
VISIBLE_SECONDS = 120

pytestmark = [pytest.mark.endurance, pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)]


@pytest.fixture(params=bad_disks(), ids=lambda kind: kind.__name__)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BadDisk]:
    made: BadDisk = request.param(tmp_path / "disk")
    yield made
    made.remove()


def post(here: Site, number: int, size: int = 3) -> tuple[int, str, str]:
    """Send a few events; return status, Retry-After and message."""
    events = [event(f"job-{number}-{one}", number=number + one) for one in range(size)]
    note_sent(here.said, events)
    connection = http.client.HTTPConnection("127.0.0.1", here.caller.port, timeout=60)
    headers = {"Authorization": f"Bearer {here.caller.key}", "Content-Type": "application/cloudevents-batch+json"}
    connection.request("POST", "/v1/events", orjson.dumps(events), headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status == 202:
        note_acknowledged(here.said, events, body)
        return 202, "", ""
    return answer.status, answer.headers.get("Retry-After", ""), orjson.loads(body)["error"]["message"]


def jobs_shown(here: Site) -> int:
    """Return how many jobs the server shows as counted; -1 where it says to come again."""
    connection = http.client.HTTPConnection("127.0.0.1", here.caller.port, timeout=60)
    path = "/v1/usage?from=2026-11-01&to=2026-11-30&by=cluster"
    connection.request("GET", path, headers={"Authorization": f"Bearer {here.payer.key}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status in {200, 503}, body
    return int(orjson.loads(body)["rows"][0]["jobs"]) if answer.status == 200 else -1


def while_ill(here: Site) -> list[tuple[int, str, str]]:
    """Go on sending while nothing can be kept, and looking, for as long as every job has its turn."""
    end = time.monotonic() + ILL_SECONDS
    told: list[tuple[int, str, str]] = []
    while time.monotonic() < end or len(told) < POSTS:
        told.append(post(here, 10_000 + len(told)))
        if len(told) % 10 == 0:
            jobs_shown(here)
    return told


def wait_until_counted(here: Site) -> None:
    end = time.monotonic() + VISIBLE_SECONDS
    while jobs_shown(here) < len(here.said.acknowledged):
        assert time.monotonic() < end, f"{jobs_shown(here)} of {len(here.said.acknowledged)} jobs are shown"
        time.sleep(0.2)


def command_on(here: Site) -> Child:
    """Record a receipt by the command line."""
    output = here.logs / "topup.log"
    output.unlink(missing_ok=True)
    command = here.programs.start(["topup", CUSTOMER, "12.00", "--reference", "bank-1"], here.own(), output)
    command.wait()
    return command


@pytest.mark.timeout(900)
def test_a_bad_disk_is_told_as_503_and_the_server_goes_on_once_it_is_mended(
    disk: BadDisk, new_home: NewHome, tmp_path: Path
) -> None:
    home = new_home(disk.folder / "home", NOW)
    with site(home, tmp_path, new_seed(), environment=disk.environment) as here:
        server = here.start()
        here.wait(server)
        assert {post(here, number)[0] for number in range(POSTS)} == {202}
        disk.spoil(server)
        told = while_ill(here)
        if isinstance(disk, Shimmed):
            refused = command_on(here)
            assert "refused: the database" in refused.said(), refused.said()
        # What still fitted into room that was there may be acknowledged; after that nothing is, and nothing breaks.
        assert {status for status, _, _ in told} <= {202, 503}, told
        assert [status for status, _, _ in told[-POSTS // 2 :]] == [503] * (POSTS // 2)
        assert all(retry == "5" and disk.says in message for status, retry, message in told if status == 503), told[-1]
        disk.mend(server)
        assert server.alive()
        assert {post(here, 20_000 + number)[0] for number in range(POSTS)} == {202}
        wait_until_counted(here)
        if isinstance(disk, Shimmed):
            assert "received (bank-1)" in command_on(here).said()
            here.said.receipts["bank-1"] = 1200
            here.said.received.add("bank-1")
        # Where no file can be written, no log can either.
        logged = "was refused: the database cannot be used" in server.said()
        assert logged or isinstance(disk, SizeLimit), server.said()
        server.kill()
        assert complaints(here) == []
