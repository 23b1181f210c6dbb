"""`POST /v1/logs/slurm/{cluster}`: a scheduler's accounting as it stands, durable before it is acknowledged."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from hourbook.api.access import Collector
from hourbook.api.bodies import MISSING, REFUSALS, Body, ErrorBody, Responses, json_response
from hourbook.errors import InvalidRequestError, MalformedError, NotAllowedError, TooLargeError, WrongTypeError
from hourbook.serving import ServedHome, read_body
from hourbook.settings import Home
from hourbook.slurm_logs import (
    RowsDifferError,
    SlurmText,
    UnpackedTooLargeError,
    UnpackError,
    accept_slurm_json,
    accept_slurm_text,
    unpacked,
)
from metering.collectors.common import LogFileError
from metering.collectors.slurm_layout import SacctFileError
from metering.store import BatchReceipt

MAX_BYTES = 16 * 1024 * 1024
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
MOST_ROWS = 10_000_000
TEXT, JSON = "text/plain", "application/json"

router = APIRouter(prefix="/v1", tags=["events"], responses=REFUSALS)

ClusterName = Annotated[str, Path(pattern=r"^[^/\x00-\x1f\x7f]{1,64}$", max_length=64)]


class LogParameters(Body):
    """What a file of `sacct -P` does not say itself."""

    delimiter: str = Field(
        default="|",
        pattern=r"^[^\r\n]{1,64}$",
        description="As given to sacct; one made up for this pull keeps names from passing for rows",
    )
    rows: int | None = Field(default=None, ge=0, le=MOST_ROWS, description="As counted by the sender, header excluded")


@dataclass(frozen=True)
class _Sent:
    """A body as it arrived."""

    cluster: str
    payload: bytes
    kind: str
    packed: bool
    origin: str


class LogReceipt(Body):
    """What became of every row. All of it is on disk when this is sent."""

    batch: int
    rows: int  # events + no_usage + quarantined
    events: int
    no_usage: dict[str, int]  # by reason: never started, pending, step, …
    quarantined: dict[str, int]  # by code; kept with the reason until somebody looks at them
    repeated: int  # of the quarantined: stood there before
    notes: list[str]


_RESPONSES: Responses = {
    202: {"model": LogReceipt, "description": "Durable; rows that cannot be used stand in quarantine"},
    400: {"model": ErrorBody, "description": "The body cannot be read"},
    413: {"model": ErrorBody, "description": f"More than {MAX_BYTES:,} bytes, or {MAX_UNPACKED_BYTES:,} unpacked"},
    415: {"model": ErrorBody, "description": "The body is of another type"},
}
_CONTENT = {TEXT: {"schema": {"type": "string"}}, JSON: {"schema": {"type": "object"}}}


@router.post(
    "/logs/slurm/{cluster}",
    status_code=HTTPStatus.ACCEPTED,
    responses={**_RESPONSES, **MISSING},
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
)
async def post_slurm_log(
    request: Request,
    cluster: ClusterName,
    asked: Annotated[LogParameters, Query()],
    caller: Collector,
    home: ServedHome,
) -> Response:
    """Take rows of `sacct -P` with a header line, or an answer of `sacct --json`, plain or gzip.

    The same rows sent again change nothing, so whoever got no answer sends them again.
    """
    if not caller.may_report(cluster):
        raise NotAllowedError(f"this key does not report of {cluster}")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind not in _CONTENT or coding not in {"identity", "gzip"}:
        raise WrongTypeError(f"send {TEXT} or {JSON}, as it is or with Content-Encoding: gzip")
    payload = await read_body(request, MAX_BYTES)
    sent = _Sent(cluster, payload, kind, coding == "gzip", f"{caller.key_id}:{secrets.token_hex(8)}")
    receipt = await run_in_threadpool(_accept, home, sent, asked)
    return json_response(_told(receipt), HTTPStatus.ACCEPTED)


def _accept(home: Home, sent: _Sent, asked: LogParameters) -> BatchReceipt:
    try:
        body = unpacked(sent.payload, MAX_UNPACKED_BYTES) if sent.packed else sent.payload
        if sent.kind == JSON:
            return accept_slurm_json(home, sent.cluster, body, origin=sent.origin)
        return accept_slurm_text(home, sent.cluster, body, SlurmText(asked.delimiter, asked.rows), origin=sent.origin)
    except UnpackError as error:
        raise MalformedError(str(error)) from error
    except UnpackedTooLargeError as error:
        raise TooLargeError(str(error)) from error
    except (SacctFileError, LogFileError, RowsDifferError) as error:
        raise InvalidRequestError(str(error)) from error


def _told(receipt: BatchReceipt) -> dict[str, object]:
    return {
        "batch": receipt.batch_seq,
        "rows": receipt.rows,
        "events": receipt.events,
        "no_usage": dict(receipt.no_usage),
        "quarantined": dict(receipt.quarantined),
        "repeated": receipt.repeated,
        "notes": list(receipt.notes),
    }
