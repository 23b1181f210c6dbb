"""The server is killed two hundred times under usage and payments at once: what it acknowledged is there, once."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from tests.homes import NewHome
from tests.postgresql import Server

from .breaks import SEEN_WHEN_KILLED
from .load import Said, running
from .served_home import NOW, complaints, new_seed, site
from .test_postgresql_killed import busy_processes, end_politely, kill

KILLS = int(os.environ.get("HOURBOOK_TEST_KILLS", "200"))
FEW = 20  # of a broken build: it is caught sooner
ROUNDS = 4  # on a slow machine a server may do too little in its life for the break to show
CRASHES = 30
# What must have been acknowledged in two hundred kills, or too little was at stake.
LEAST_PAYMENTS, LEAST_RECEIPTS = 20, 10

pytestmark = pytest.mark.endurance


def enough(said: Said) -> bool:
    """Tell whether so much money was acknowledged that its loss would show."""
    share = min(1, KILLS / 200)
    return len(said.paid) >= LEAST_PAYMENTS * share and len(said.received) >= LEAST_RECEIPTS * share


@pytest.mark.timeout(1800)
def test_whatever_was_acknowledged_survives_two_hundred_kills_and_counts_once(
    new_home: NewHome, tmp_path: Path
) -> None:
    with site(new_home(tmp_path / "home", NOW), tmp_path, new_seed()) as here:
        with running(here.senders()):
            here.kill_often(KILLS, lambda: enough(here.said))
        assert complaints(here) == []
        assert len(here.said.acknowledged) > 10 * KILLS
        assert enough(here.said), f"{len(here.said.paid)} payments, {len(here.said.received)} receipts"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("new_home", ["sqlite"], indirect=True)
@pytest.mark.parametrize("broken", SEEN_WHEN_KILLED)
def test_a_build_that_is_broken_is_caught(broken: str, new_home: NewHome, tmp_path: Path) -> None:
    with site(new_home(tmp_path / "home", NOW), tmp_path, new_seed(), broken=broken) as here:
        for _ in range(ROUNDS):
            with running(here.senders()):
                here.kill_often(FEW)
            if complaints(replace(here, broken="")):
                return
        pytest.fail(f"{broken} went unnoticed: the proof proves nothing")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("new_home", ["postgresql"], indirect=True)
def test_a_database_server_that_crashes_under_usage_loses_nothing(
    new_home: NewHome, postgresql: Server, tmp_path: Path
) -> None:
    with site(new_home(tmp_path / "home", NOW), tmp_path, new_seed()) as here:
        server = here.start()
        here.wait(server)
        with running(here.senders()):
            for turn in range(CRASHES):
                time.sleep(here.chance.uniform(0.3, 1))
                with suppress(DBAPIError):
                    if found := busy_processes(here.home):
                        end = kill if turn % 2 else end_politely
                        end(postgresql, here.chance.choice(found))
        assert server.alive(), "the server must come through on its own"
        assert here.said.refused, "nobody was told to come again, so nothing was interrupted"
        server.kill()
        assert complaints(here) == []
