"""The API of a Kubernetes cluster: lists of pods and nodes, and what changes of them, over HTTPS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import orjson

from hourbook.kube_access import KubeAccess

Item = Mapping[str, Any]

PAGE = 500
ATTEMPTS = 3
TIMEOUT_SECONDS = 30.0
GONE = 410


class KubeError(RuntimeError):
    """The API did not give what was asked for; the message says what it answered."""


class HistoryGoneError(KubeError):
    """The server no longer knows what changed since then."""


class KubeApi:
    """A connection to an API server; only lists and watches, so that a role that may read pods and nodes will do."""

    def __init__(self, access: KubeAccess, client: httpx.Client) -> None:
        self.access = access
        self.client = client

    def list_all(self, path: str) -> tuple[list[Item], str]:
        """Return everything there is of a kind, and the version of the state that this is; never a part of it."""
        for _ in range(ATTEMPTS):
            with suppress(HistoryGoneError):  # a list that took too long to page through is begun again
                return self._list(path)
        raise KubeError(f"{path} could not be listed to its end in {ATTEMPTS} attempts; is the server overloaded?")

    def _list(self, path: str) -> tuple[list[Item], str]:
        items: list[Item] = []
        going_on = ""
        while True:
            page = self._get(path, {"limit": PAGE, **({"continue": going_on} if going_on else {})})
            about = page.get("metadata") or {}
            items += page.get("items") or []
            going_on = str(about.get("continue") or "")
            if not going_on:
                return items, str(about.get("resourceVersion", ""))

    def watch(self, path: str, version: str, seconds: int) -> Iterator[Item]:
        """Yield what changes of a kind since a version, for so many seconds; an interrupted watch just ends."""
        asked: dict[str, str | int] = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=seconds + TIMEOUT_SECONDS)
        with (
            _told(self.access),
            self.client.stream("GET", path, params=asked, headers=self.access.headers(), timeout=timeout) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                answer.read()
                _check(answer, path)
            with suppress(httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout):
                yield from _events(answer.iter_lines())

    def _get(self, path: str, asked: Mapping[str, str | int]) -> dict[str, Any]:
        with _told(self.access):
            answer = self.client.get(path, params=dict(asked), headers=self.access.headers())
        _check(answer, path)
        try:
            found = orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise KubeError(f"{self.access.server}{path} answered no JSON ({error}); is it an API server?") from error
        if not isinstance(found, dict):
            raise KubeError(f"{self.access.server}{path} answered no list; is it an API server?")
        return found


def _events(lines: Iterator[str]) -> Iterator[Item]:
    for line in lines:
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            return  # the connection broke in the middle of an event
        if event.get("type") == "ERROR":
            said = event.get("object") or {}
            kind = HistoryGoneError if said.get("code") == GONE else KubeError
            raise kind(f"the watch ended: {said.get('message', said)}")
        if event.get("type") != "BOOKMARK":
            yield event


def _check(answer: httpx.Response, path: str) -> None:
    if answer.status_code == httpx.codes.OK:
        return
    if answer.status_code == GONE:
        raise HistoryGoneError(f"{path}: the server no longer knows that version")
    advice = {401: "renew the token", 403: "its role must be allowed to list and watch pods and nodes"}
    said = answer.text[:200]
    with suppress(orjson.JSONDecodeError, AttributeError):
        said = orjson.loads(answer.content).get("message", said)
    raise KubeError(f"{path} was answered {answer.status_code} ({said}); {advice.get(answer.status_code, 'try again')}")


@contextmanager
def _told(access: KubeAccess) -> Iterator[None]:
    """Say of a connection that fails which server it was."""
    try:
        yield
    except httpx.HTTPError as error:
        raise KubeError(f"{access.server} cannot be reached: {error}") from error


@contextmanager
def connected(access: KubeAccess) -> Iterator[KubeApi]:
    """Connect to a cluster's API; its certificate is checked against the authority that the access names."""
    verify: ssl.SSLContext = access.ssl_context()
    with httpx.Client(base_url=access.server, verify=verify, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        yield KubeApi(access, client)
