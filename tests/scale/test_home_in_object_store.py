"""A home whose lake and rollups lie in an object store: the same figures and documents as in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from hourbook.database import open_home
from hourbook.refreshing import refresh
from tests.hourbook.cli_stories import Terminal
from tests.hourbook.served import FACTS, usage_event

pytestmark = pytest.mark.slow

MONTH = "2026-11"
USAGE = ("usage", "--from", "2026-11-01", "--to", "2026-11-30", "--by", "day,account,user", "--format", "csv")


def objects(url: str) -> list[str]:
    """List what lies in a store under a prefix."""
    store = S3Store.from_url(url)
    return sorted(str(entry["path"]) for some in obstore.list(store) for entry in some)


def month(folder: Path) -> Terminal:
    """A month of usage, some of it late and corrected, imported, closed and issued."""
    folder.mkdir()
    terminal = Terminal(folder / "home")
    terminal.done("init", "--clock", "2026-12-01T10:00:00+08:00")
    facts, first, second = (folder / name for name in ("facts.toml", "first.json", "second.json"))
    facts.write_text(FACTS, encoding="utf-8")
    first.write_text(json.dumps([usage_event(n, day=3 + n % 20) for n in range(40)]), encoding="utf-8")
    corrected = [usage_event(n, day=3 + n % 20, hours=1, revision=2) for n in range(5)]
    second.write_text(json.dumps([*corrected, usage_event(99, "south")]), encoding="utf-8")
    terminal.done("apply", facts)
    terminal.done("import", "events", first)
    terminal.done("import", "events", second)
    terminal.done("topup", "u-north", "1000.00", "--reference", "bank 1", "--received-on", "2026-11-01")
    terminal.done("close", MONTH)
    return terminal


@pytest.fixture
def in_store(tmp_path: Path, place: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> tuple[Terminal, str]:
    url = place()
    monkeypatch.setenv("HOURBOOK_LAKE", url)
    return month(tmp_path / "store"), url


def test_figures_and_documents_are_those_of_a_lake_in_a_folder(
    tmp_path: Path, in_store: tuple[Terminal, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, url = in_store
    usage = terminal.done(*USAGE).out
    listed = terminal.done("invoice", "list", MONTH, "--format", "csv").out
    terminal.done("verify")
    assert any("/events/_delta_log/" in f"/{name}" for name in objects(url))
    assert any(name.startswith("rollup/") for name in objects(url))
    assert not (terminal.home / "lake").exists(), "nothing of the lake is left on this machine"
    monkeypatch.delenv("HOURBOOK_LAKE")
    local = month(tmp_path / "folder")
    assert local.done(*USAGE).out == usage
    assert local.done("invoice", "list", MONTH, "--format", "csv").out == listed


def test_a_rollup_that_was_replaced_is_deleted_in_the_store_after_the_next(
    tmp_path: Path, in_store: tuple[Terminal, str]
) -> None:
    terminal, url = in_store
    file = tmp_path / "late.json"
    for number in (201, 202, 203):
        file.write_text(json.dumps([usage_event(number, day=5)]), encoding="utf-8")
        terminal.done("import", "events", file)
    # UTC date of midnight in Shanghai on the 5th; the one in force, and the one before for whoever still reads it.
    assert len([name for name in objects(url) if "2026-11-04-" in name]) == 2


def test_a_lake_that_lacks_what_was_handed_over_is_refused(
    in_store: tuple[Terminal, str], place: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, url = in_store
    monkeypatch.setenv("HOURBOOK_LAKE", place())
    refused = terminal(*USAGE)
    assert refused.code == 1
    assert "holds batches up to 0, but the inbox has handed over 2" in " ".join(refused.err.split())
    monkeypatch.setenv("HOURBOOK_LAKE", url)
    terminal.done(*USAGE)


def test_a_store_that_is_away_is_named_and_nothing_is_lost(
    in_store: tuple[Terminal, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, _ = in_store
    before = terminal.done(*USAGE).out
    with monkeypatch.context() as away:
        away.setenv("AWS_SECRET_ACCESS_KEY", "changed")
        refused = terminal(*USAGE)
        assert refused.code == 1
        assert "AWS_SECRET_ACCESS_KEY" in refused.err
    assert terminal.done(*USAGE).out == before


def test_a_lake_may_lie_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOURBOOK_LAKE", str(tmp_path / "big-disk" / "lake"))
    terminal = month(tmp_path / "own")
    assert (tmp_path / "big-disk" / "lake" / "events").is_dir()
    assert not (terminal.home / "lake").exists()
    home = open_home(terminal.home)
    assert refresh(home).dates == 0, "all is rolled up there already"
    home.close()
