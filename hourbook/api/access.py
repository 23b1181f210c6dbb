"""Who may call what: the bearer key of a request, and the roles that a route is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hourbook.database import read_session
from hourbook.errors import NotAllowedError, NotSignedInError
from hourbook.keys import Caller, Role, caller_of_key
from hourbook.serving import ServedHome

BEARER = HTTPBearer(auto_error=False, description="A key made by `hourbook key create`, as hb_<id>_<secret>.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


def caller_of(request: Request, home: ServedHome, credentials: Credentials) -> Caller:
    """Return who calls; no key, a wrong one and a revoked one are told the same."""
    # Two keys in one request might be judged differently on their way here.
    if credentials is None or len(request.headers.getlist("authorization")) != 1:
        raise NotSignedInError
    with read_session(home.engine) as session:
        caller = caller_of_key(session, credentials.credentials)
    if caller is None:
        raise NotSignedInError
    return caller


def allowed(*roles: Role) -> Callable[[Caller], Caller]:
    """Return a dependency that lets only these roles pass."""

    def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if caller.role not in roles:
            raise NotAllowedError(f"a {caller.role} key cannot do this; it needs the role {' or '.join(roles)}")
        return caller

    return check


Collector = Annotated[Caller, Depends(allowed("collector"))]
Reader = Annotated[Caller, Depends(allowed("customer", "finance"))]
