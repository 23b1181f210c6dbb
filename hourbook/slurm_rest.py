"""Asks slurmrestd for a cluster's accounting, over TCP or a socket of this machine."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from metering.slurm_source import SlurmAccess

MAX_BYTES = 512 * 2**20
ANSWERED = 200
DUPLICATES_ON_REQUEST = (0, 0, 40)


class SlurmRestError(OSError):
    """slurmrestd cannot be reached, or does not answer what was asked; the message says what to do."""


class _LocalConnection(http.client.HTTPConnection):
    """HTTP through a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask_slurmrestd(access: SlurmAccess, cluster: str, begin: int, end: int) -> bytes:
    """Return the JSON of every attempt that was there between two seconds, earlier attempts of requeued jobs too."""
    window = {"start_time": f"uts{begin}", "end_time": f"uts{end}", "cluster": cluster}
    # Steps would make the answer long; later versions leave out attempts before a requeue unless they are asked for.
    more = {"show_duplicates": "true"} if _number_of(access.api) >= DUPLICATES_ON_REQUEST else {}
    asked = urlencode({**window, "skip_steps": "true", **more})
    connection, prefix = _connection(access)
    try:
        connection.request("GET", f"{prefix}/slurmdb/{access.api}/jobs?{asked}", headers=_headers(access))
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise SlurmRestError(f"slurmrestd at {access.url} does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status != ANSWERED:
        said = body[:300].decode(errors="replace")
        raise SlurmRestError(f"slurmrestd at {access.url} says {answer.status}: {said}; check api, user and token_file")
    if len(body) > MAX_BYTES:
        raise SlurmRestError(f"slurmrestd's answer is longer than {MAX_BYTES:,} bytes; collect with sacct instead")
    return body


def _number_of(api: str) -> tuple[int, ...]:
    return tuple(int(part) for part in api.removeprefix("v").split("."))


def _connection(access: SlurmAccess) -> tuple[http.client.HTTPConnection, str]:
    if access.url.startswith("unix:"):
        return _LocalConnection(access.url.removeprefix("unix:"), access.timeout_seconds), ""
    parts = urlsplit(access.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=access.timeout_seconds), parts.path


def _headers(access: SlurmAccess) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if access.user:
        headers["X-SLURM-USER-NAME"] = access.user
    if access.token_file:
        token = Path(access.token_file).read_text(encoding="ascii").strip()
        headers["X-SLURM-USER-TOKEN"] = token.removeprefix("SLURM_JWT=")
    return headers
