"""Usage over the API and on the command line: the same fields, the same figures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hourbook.usage_report import FIELDS
from tests.hourbook.cli_stories import Terminal
from tests.hourbook.served import Served, served

FIRST, LAST = "2026-11-05", "2026-11-12"


@pytest.fixture(scope="module")
def hourbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("both")) as one:
        yield one


@pytest.mark.parametrize("by", [*FIELDS, "hour,user,partition", "day,account,cluster,qos"])
def test_the_api_answers_what_the_command_line_says(hourbook: Served, by: str) -> None:
    asked = {"from": FIRST, "to": LAST, "by": by, "timezone": "Asia/Shanghai"}
    over_http = hourbook.get("/v1/usage", "finance", **asked).json()["rows"]
    options = [part for name, value in asked.items() for part in (f"--{name}", value)]
    typed = Terminal(hourbook.home.path).done("usage", *options, "--format", "json").json()
    assert over_http == typed
    assert over_http
