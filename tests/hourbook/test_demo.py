"""`make demo`: the month of the sample operator, run twice, and the page and files that it leaves."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import time
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from hourbook.demo import OUT, REPOSITORY, run_demo, sample_month
from tests.hourbook.cli_stories import Terminal

SECONDS = 60


class Page(HTMLParser):
    """The links of a page, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class Demo:
    """One demo in a folder of its own, and what it printed."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seconds = 0.0

    def run(self) -> str:
        """Run it and return what it printed."""
        printed = io.StringIO()
        began = time.monotonic()
        assert run_demo(self.out, Console(file=printed, width=200)) == 0
        self.seconds = time.monotonic() - began
        return printed.getvalue()

    def files(self) -> Mapping[str, str]:
        """What lies in the folder beside the home, by fingerprint."""
        found = [
            file for file in self.out.rglob("*") if file.is_file() and file.relative_to(self.out).parts[0] != "home"
        ]
        return {str(file.relative_to(self.out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo's folder."""
    return Demo(tmp_path_factory.mktemp("demo") / "demo")


@pytest.fixture(scope="module")
def first(demo: Demo) -> str:
    """What the first run printed."""
    return demo.run()


def figures_of(printed: str, name: str) -> list[str]:
    """The figures behind a name in a summary table."""
    found = re.search(rf"^{re.escape(name)} {{2,}}(.*)$", printed, re.MULTILINE)
    assert found, (name, printed)
    return found[1].split()


def test_make_leaves_everything_in_the_folder_demo_of_the_repository() -> None:
    assert OUT == REPOSITORY / "demo"
    assert (REPOSITORY / "Makefile").is_file()


def test_the_real_log_is_delivered_as_a_collector_would() -> None:
    month = sample_month()
    cluster, files = month.logs[0]
    assert cluster == "hpc1"
    assert files[0].parent.name == "D1_early"
    assert files[-1].name == "sacct-epoch-name-last.psv.gz"
    assert len(files) == 11


@pytest.mark.slow
def test_every_row_is_accounted_for_and_nothing_is_left_in_quarantine(first: str) -> None:
    names = re.findall(r"^((?:kept|duplicate|superseded|no usage: \w+|quarantined: \w+)) {2,}", first, re.MULTILINE)
    counts = [int(figures_of(first, name)[0].replace(",", "")) for name in names]
    assert sum(counts) == int(figures_of(first, "rows in")[0].replace(",", ""))
    assert figures_of(first, "quarantined: broken_row") == ["42", "0"]


@pytest.mark.slow
def test_the_summary_shows_hours_charges_documents_differences_and_margin(first: str) -> None:
    assert figures_of(first, "hpc1")[0] == "6.126111"
    charged = figures_of(first, "all")[0]
    documents = [figures_of(first, kind) for kind in ("invoice", "statement")]
    assert [row[0] for row in documents] == ["8", "32"]
    assert minor(charged) == sum(minor(row[1]) for row in documents)
    kinds = {line.split()[1] for line in first.splitlines() if line.startswith(("lanjiang-centre", "xuanpu-ai"))}
    assert kinds == {"unbilled_usage", "unknown_charge", "quantity", "price", "duplicate"}
    revenue, cost, margin = figures_of(first, "合计 Total")[:3]
    assert minor(margin) == minor(revenue) - minor(cost)


def minor(amount: str) -> int:
    return int(amount.replace(",", "").replace(".", ""))


@pytest.mark.slow
def test_the_page_links_every_file_and_holds_nothing_from_elsewhere(demo: Demo, first: str) -> None:
    assert first
    text = (demo.out / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert sorted(page.links) == sorted(set(demo.files()) - {"index.html"})
    assert "http" not in text.replace("http-equiv", "")
    assert "D1_early/sacct.psv.gz" in "".join(page.words)
    assert len([link for link in page.links if link.startswith("invoices/")]) == 8
    assert len([link for link in page.links if link.startswith("statements/")]) == 32


@pytest.mark.slow
def test_the_command_that_it_names_works(demo: Demo, first: str) -> None:
    line = next(line for line in first.splitlines() if "invoice explain" in line)
    words = shlex.split(line)
    arguments = words[words.index("invoice") :]
    assert "covered by" in Terminal(demo.out / "home").done(*arguments).out


@pytest.mark.slow
def test_running_it_again_changes_nothing_and_says_so(demo: Demo, first: str) -> None:
    before = demo.files()
    again = demo.run()
    assert "Nothing changed" in again
    assert "Nothing changed" not in first
    assert demo.files() == before


@pytest.mark.slow
def test_a_file_that_was_tampered_with_is_written_again(demo: Demo, first: str) -> None:
    assert first
    before = demo.files()
    (demo.out / "invoices" / "INV-2026-00001.pdf").write_bytes(b"%PDF-1.4 forged")
    (demo.out / "statements" / "STM-2026-00002.pdf").unlink()
    demo.run()
    assert demo.files() == before


@pytest.mark.slow
def test_it_takes_less_than_a_minute(demo: Demo, first: str) -> None:
    assert first
    assert demo.seconds < SECONDS
