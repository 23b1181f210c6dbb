"""What each error means over HTTP: its status and code. The only place that knows both."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

from sqlalchemy.exc import DBAPIError, OperationalError

from hourbook.completeness import NoGapError
from hourbook.database import is_busy, outage
from hourbook.gathering import OverloadedError
from hourbook.receiving import UnknownCustomerError
from hourbook.runaways import RunawayError
from hourbook.sealing import SealerBusyError
from hourbook.slurm_logs import UnknownClusterError
from hourbook.statements import StatementsRefusedError
from hourbook.stripe_events import UnknownPaymentError
from hourbook.topups import PaymentMismatchError, TopUpConflictError, TopUpRefusedError
from hourbook.usage_report import UnknownFieldError
from invoices.store import UnknownDocumentError
from invoices.stripe_gateway import (
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnknownError,
    KeyUsedError,
    UntrustedEventError,
)
from metering.amendments import AmendmentRefusedError, UnknownEventError
from metering.object_store import ObjectStoreError

RETRY_SECONDS = "5"
# Full, over quota, read-only, broken: what a disk says that may be mended while the server runs on.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


class NotSignedInError(Exception):
    """No key, or one that is unknown or revoked."""


class NotAllowedError(Exception):
    """The key is good, but its role may not do this."""


class NotFoundError(Exception):
    """There is nothing here for this caller: it does not exist, or it is another customer's."""


class MalformedError(Exception):
    """What was sent cannot be read at all."""


class InvalidRequestError(Exception):
    """What was sent can be read but not be done."""


class TooLargeError(Exception):
    """More was sent than is taken at once."""


class WrongTypeError(Exception):
    """The body is of a type that is not understood here."""


class FormRefusedError(Exception):
    """A form did not come from a page of ours, or from one that is too old."""


class StillCountingError(Exception):
    """New configuration or usage is being counted just now."""


@dataclass(frozen=True)
class Meaning:
    """How an error is told to a caller."""

    status: HTTPStatus
    code: str
    message: str = ""  # instead of the error's own, where that says too much
    headers: Mapping[str, str] | None = None


NOTHING_HERE = "there is nothing here for this key"

MEANINGS: dict[type[Exception], Meaning] = {
    NotSignedInError: Meaning(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "send a valid key as `Authorization: Bearer hb_…`",
        {"WWW-Authenticate": 'Bearer realm="hourbook"'},
    ),
    NotAllowedError: Meaning(HTTPStatus.FORBIDDEN, "forbidden"),
    FormRefusedError: Meaning(HTTPStatus.FORBIDDEN, "form_refused"),
    # One message for what does not exist and for what is another's, so that nobody can tell them apart.
    NotFoundError: Meaning(HTTPStatus.NOT_FOUND, "not_found", NOTHING_HERE),
    UnknownCustomerError: Meaning(HTTPStatus.NOT_FOUND, "not_found", NOTHING_HERE),
    # A collector must learn that nothing of what it sent was taken, and why.
    UnknownClusterError: Meaning(HTTPStatus.NOT_FOUND, "unknown_cluster"),
    UnknownDocumentError: Meaning(HTTPStatus.NOT_FOUND, "not_found", NOTHING_HERE),
    MalformedError: Meaning(HTTPStatus.BAD_REQUEST, "malformed"),
    InvalidRequestError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
    UnknownFieldError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
    UnknownEventError: Meaning(HTTPStatus.NOT_FOUND, "not_found", NOTHING_HERE),
    AmendmentRefusedError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "refused_amendment"),
    StatementsRefusedError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "refused_statement"),
    NoGapError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "no_gap"),
    RunawayError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "no_runaway"),
    TooLargeError: Meaning(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"),
    WrongTypeError: Meaning(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
    OverloadedError: Meaning(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", headers={"Retry-After": RETRY_SECONDS}),
    StillCountingError: Meaning(HTTPStatus.SERVICE_UNAVAILABLE, "counting", headers={"Retry-After": RETRY_SECONDS}),
    SealerBusyError: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE, "busy", "busy; try again in a few seconds", {"Retry-After": RETRY_SECONDS}
    ),
    TopUpRefusedError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "refused_top_up"),
    TopUpConflictError: Meaning(HTTPStatus.UNPROCESSABLE_ENTITY, "key_reused"),
    UntrustedEventError: Meaning(HTTPStatus.BAD_REQUEST, "untrusted"),
    PaymentMismatchError: Meaning(HTTPStatus.BAD_REQUEST, "mismatch"),
    # Never 200: the provider then keeps telling of a payment that nobody here could place.
    UnknownPaymentError: Meaning(HTTPStatus.NOT_FOUND, "unknown_payment"),
    GatewayBusyError: Meaning(
        HTTPStatus.CONFLICT, "under_way", "under way; send it again with the same key", {"Retry-After": RETRY_SECONDS}
    ),
    KeyUsedError: Meaning(HTTPStatus.BAD_GATEWAY, "provider", "the payment provider refused the request"),
    GatewayRefusedError: Meaning(HTTPStatus.BAD_GATEWAY, "provider", "the payment provider refused the request"),
    GatewayUnknownError: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "provider_unknown",
        "the payment provider gave no clear answer; send it again with the same key",
        {"Retry-After": RETRY_SECONDS},
    ),
}

BUSY = MEANINGS[SealerBusyError]
# Nothing was acknowledged. Whether it was kept may be unknown, so the caller repeats it as it was: that counts once.
UNAVAILABLE = Meaning(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", headers={"Retry-After": RETRY_SECONDS})
# Whatever nobody expected says nothing about itself; the log has it.
INTERNAL = Meaning(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "something went wrong here; it has been logged")


def meaning_of(error: Exception) -> Meaning:
    """Return what an error means over HTTP."""
    if isinstance(error, OperationalError) and is_busy(error):
        return BUSY
    if isinstance(error, DBAPIError) and (why := outage(error)):
        return replace(UNAVAILABLE, message=f"the database cannot be used: {why}; send the same again later")
    if isinstance(error, ObjectStoreError):
        return replace(UNAVAILABLE, message="the event lake cannot be reached; send the same again later")
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return replace(UNAVAILABLE, message=f"the disk cannot be used: {error.strerror}; send the same again later")
    for kind in type(error).__mro__:
        if kind in MEANINGS:
            return MEANINGS[kind]
    return INTERNAL


def message_of(error: Exception) -> str:
    """Return what a caller is told about an error."""
    return meaning_of(error).message or str(error)


def cause_of(error: Exception) -> str:
    """Return what the driver said, for the log: one line, without the statement and its values."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(said).split())
