"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pytest
from pydantic import BaseModel

from .homes import BOTH, NewHome, Templates, homes_on_postgresql, homes_on_sqlite
from .postgresql import NoServerError, Server, running_server

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class _Warm(BaseModel):
    value: int


# Used first inside a frozen clock, polars and pydantic would stay broken for the whole process.
pl.DataFrame({"warm": [1]}).lazy().select(pl.col("warm").sum()).collect()
_Warm(value=1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real logs with independent truth, where it is at hand."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real logs of ../shared/data, which are not here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server for this run of the tests, where its programs are at hand."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_server())
        except NoServerError as error:
            pytest.skip(f"needs PostgreSQL: {error}")
        yield server


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Homes to copy."""
    return Templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture(params=BOTH)
def new_home(
    request: pytest.FixtureRequest, templates: Templates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NewHome]:
    """Make homes on one kind of database; a test that uses it runs once for each."""
    with ExitStack() as cleanup:
        if request.param == "sqlite":
            yield homes_on_sqlite(templates, monkeypatch, cleanup)
        else:
            yield homes_on_postgresql(templates, monkeypatch, cleanup, request.getfixturevalue("postgresql"))
