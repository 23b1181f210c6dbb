"""Hands what the spool holds to the server, and tells what became of it."""

from __future__ import annotations

import gzip
import json
import random
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from .spool import HOURS

SENT, LATER, REFUSED = "sent", "later", "refused"
ACCEPTED = 202
# What the server says of a file that it will not take however often it is sent.
NEVER = frozenset({400, 413, 415, 422})
LONGEST_WAIT = 300


@dataclass(frozen=True)
class Sent:
    """What became of a file."""

    status: str  # SENT: the server has it; LATER: try again; REFUSED: it will never be taken
    said: str
    wait_seconds: int = 0  # for how long the server asked to be left alone


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would lose its body, and the key might go to a stranger."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - the base class's signature
        return None


@dataclass(frozen=True)
class Server:
    """The server, and the key with which it is called."""

    url: str
    key: str
    cluster: str
    ca_file: str = ""
    timeout_seconds: int = 120

    def send(self, path: Path) -> Sent:
        """Send a file of the spool; SENT only if the server says that all rows of it are on its disk."""
        if path.name.endswith(HOURS):
            return self._post("/v1/statements", path.read_bytes(), {"Content-Type": "application/json"})
        body = path.read_bytes()
        try:
            delimiter, rows = described(body)
        except (OSError, EOFError, ValueError) as error:
            return Sent(REFUSED, f"it is damaged ({error}); its window is asked for again by the next sweep")
        asked = urlencode({"delimiter": delimiter, "rows": rows})
        headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
        return self._post(f"/v1/logs/slurm/{quote(self.cluster, safe='')}?{asked}", body, headers)

    def _post(self, where: str, body: bytes, headers: dict[str, str]) -> Sent:
        secret = {"Authorization": f"Bearer {self.key}", "User-Agent": "hourbook-collect-slurm"}
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.url.rstrip("/") + where, body, {**headers, **secret}, method="POST"
        )
        context = ssl.create_default_context(cafile=self.ca_file or None)
        opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(request, timeout=self.timeout_seconds) as answer:
                text = answer.read(1_000_000).decode(errors="replace")
                return _accepted(answer.status, text)
        except urllib.error.HTTPError as error:
            return _refusal(error.code, error.read(2000).decode(errors="replace"), error.headers.get("Retry-After"))
        except (OSError, ValueError, urllib.error.URLError) as error:
            return Sent(LATER, f"no answer from {self.url}: {getattr(error, 'reason', error)}")


def described(body: bytes) -> tuple[str, int]:
    """Return the delimiter of a file of rows, and how many rows it has."""
    lines = gzip.decompress(body).split(b"\n")
    mark = lines[0][len(b"JobID") : lines[0].index(b"JobIDRaw", 1)]
    return mark.decode(), sum(mark in line for line in lines) - 1


def wait_after(failures: int, asked_seconds: int) -> float:
    """Return how long to leave the server alone: longer each time, and never all collectors at once."""
    growing = float(min(LONGEST_WAIT, 5 << min(failures, 10)))
    return max(float(asked_seconds), growing * random.uniform(0.5, 1))  # noqa: S311 - only to spread the load


def _accepted(status: int, text: str) -> Sent:
    if status != ACCEPTED:
        return Sent(LATER, f"the answer is {status}, not {ACCEPTED}: is that address Hourbook's?")
    try:
        said = json.loads(text)
    except ValueError:
        return Sent(LATER, "the answer is no JSON: is that address Hourbook's?")
    refused = said.get("quarantined") if isinstance(said, dict) else None
    return Sent(SENT, f"{sum(refused.values())} row(s) of it are quarantined: {refused}" if refused else "")


def _refusal(code: int, text: str, retry_after: str | None) -> Sent:
    try:
        said = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = text[:200]
    wait = min(int(retry_after), 2 * LONGEST_WAIT) if retry_after and retry_after.isdigit() else 0
    return Sent(REFUSED if code in NEVER else LATER, f"the server says {code}: {said}", wait)
