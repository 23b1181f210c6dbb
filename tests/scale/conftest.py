"""What tests beyond one machine share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.metering.conftest import events_of, lake_rows_of
from tests.object_store import ObjectStore, running_store

__all__ = ["events_of", "lake_rows_of", "object_store", "place"]


@pytest.fixture(scope="session")
def _store() -> Iterator[ObjectStore]:
    with running_store() as store:
        yield store


@pytest.fixture
def object_store(_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store that this test, and whatever processes it starts, can reach by its environment."""
    _store.use(monkeypatch)
    return _store


@pytest.fixture
def place(object_store: ObjectStore) -> Callable[[], str]:
    """Name an unused prefix in a store."""
    return object_store.new_place
