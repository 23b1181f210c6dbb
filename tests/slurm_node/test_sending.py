"""What a collector makes of answers: only a full 202 lets a file go; what will never be taken is set aside."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from hourbook.slurm_node.asking import header
from hourbook.slurm_node.sending import LATER, LONGEST_WAIT, REFUSED, SENT, Server, described, wait_after
from tests.slurm_node.login_node import row

TAKEN = '{"rows": 1, "events": 1, "quarantined": {}}'


class Answering(BaseHTTPRequestHandler):
    """A server, or whatever stands at its address, that answers as it is told."""

    answer: ClassVar[tuple[int, dict[str, str], str]] = (202, {}, TAKEN)
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, self.headers["Authorization"]))
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Answering.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "1-0000.sacct.gz"
    mark = "~d3l1m~"
    rows = [row(1, 1_795_305_600), row(2, 1_795_305_600, JobName="a\nb")]
    path.write_bytes(gzip.compress(header(mark) + b"".join(mark.join(r.values()).encode() + b"\n" for r in rows)))
    return path


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((202, {}, TAKEN), SENT),
        ((202, {}, "<html>"), LATER),  # a proxy that says yes to everything
        ((200, {}, TAKEN), LATER),
        ((302, {"Location": "http://127.0.0.1:9/"}, ""), LATER),
        ((401, {}, '{"error": {"message": "send a valid key"}}'), LATER),
        ((403, {}, "{}"), LATER),
        ((404, {}, "{}"), LATER),
        ((429, {"Retry-After": "17"}, "{}"), LATER),
        ((500, {}, ""), LATER),
        ((503, {"Retry-After": "17"}, "{}"), LATER),
        ((400, {}, "{}"), REFUSED),
        ((413, {}, "{}"), REFUSED),
        ((422, {}, '{"error": {"message": "the sender counts 2 rows and 1 were read"}}'), REFUSED),
    ],
)
def test_only_a_true_202_lets_a_file_go(
    url: str, file: Path, answer: tuple[int, dict[str, str], str], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "answer", answer)
    sent = Server(url, "hb_secret", "hpc1").send(file)
    assert sent.status == status, sent.said
    assert sent.wait_seconds == (17 if "Retry-After" in answer[1] else 0)
    assert status == SENT or sent.said
    assert len(Answering.asked) == 1  # a redirect is not followed: the key may be for nobody else


def test_the_key_the_delimiter_and_the_number_of_rows_go_with_a_file(url: str, file: Path) -> None:
    Server(f"{url}/", "hb_secret", "hpc 1").send(file)
    assert Answering.asked == [("/v1/logs/slurm/hpc%201?delimiter=~d3l1m~&rows=2", "Bearer hb_secret")]
    assert described(file.read_bytes()) == ("~d3l1m~", 2)


def test_what_is_quarantined_is_told(url: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "answer", (202, {}, '{"quarantined": {"unknown_gres": 2}}'))
    sent = Server(url, "hb_secret", "hpc1").send(file)
    assert (sent.status, sent.said) == (SENT, "2 row(s) of it are quarantined: {'unknown_gres': 2}")


def test_a_server_that_is_away_is_left_alone_for_longer_each_time_and_never_for_ever() -> None:
    waits = [wait_after(failures, 0) for failures in range(20)]
    assert all(2.5 <= wait <= LONGEST_WAIT for wait in waits)
    assert min(waits[7:]) > max(waits[:3])
    assert wait_after(0, 600) == 600
