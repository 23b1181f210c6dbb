"""Logs of other schedulers come in by the command line too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hourbook.cli_stories import fresh

KTH = "traces/swf/KTH-SP2-1996-2.1-cln.swf.gz"
CSV = "job,who,begin,finish,cores\n1,li,2026-11-02T08:00:00Z,2026-11-02T10:00:00Z,4\n"


@pytest.mark.shared
def test_a_workload_archive_log_gives_its_known_core_hours(shared_data: Path, tmp_path: Path) -> None:
    terminal = fresh(tmp_path)
    terminal.done("import", "log", "swf", shared_data / KTH, "--cluster", "kth")
    rows = terminal.done(
        "usage", "--from", "1996-01-01", "--to", "1998-12-31", "--by", "cluster", "--timezone", "UTC", "--format", "csv"
    ).rows()
    assert [(row["cluster"], row["core_hours"].split(".")[0]) for row in rows] == [("kth", "560164")]


def test_an_unknown_kind_is_wrong_use_and_names_the_known(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(CSV, encoding="utf-8")
    answer = fresh(tmp_path)("import", "log", "cobol", file, "--cluster", "c1")
    assert answer.code == 2
    assert "kubernetes" in answer.err


def test_a_csv_file_needs_a_mapping_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "jobs.csv"
    file.write_text(CSV, encoding="utf-8")
    answer = fresh(tmp_path)("import", "log", "csv", file, "--cluster", "c1")
    assert answer.code == 2
    assert "--options" in answer.err


def test_a_mapping_with_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    file, mapping = tmp_path / "jobs.csv", tmp_path / "mapping.toml"
    file.write_text(CSV, encoding="utf-8")
    mapping.write_text('nonsense = "1"\n', encoding="utf-8")
    answer = fresh(tmp_path)("import", "log", "csv", file, "--cluster", "c1", "--options", mapping)
    assert answer.code == 1
    assert "nonsense" in answer.err
