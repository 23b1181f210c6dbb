"""Who may call what: the bearer key of a request, and the roles that a route is for."""

from __future__ import annotations

from asyncio import wrap_future
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from hourbook.database import read_session
from hourbook.errors import NotAllowedError, NotSignedInError
from hourbook.gathering import Gathering
from hourbook.keys import Caller, Role, caller_of_key
from hourbook.settings import Home

BEARER = HTTPBearer(auto_error=False, description="A key made by `hourbook key create`, as hb_<id>_<secret>.")
MOST_AT_THE_DOOR = 2_000  # requests whose keys are looked up
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


class Doorkeeper:
    """Tells who calls; all who wait at the door at the same moment are looked up together, each after it came."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lookups: Gathering[str, Caller | None] = Gathering(
            self._look_up, workers=1, most=MOST_AT_THE_DOOR, group=MOST_AT_THE_DOOR
        )

    async def caller(self, key: str) -> Caller | None:
        """Return who holds a key; None where it is unknown, wrong or revoked by now."""
        return await wrap_future(self._lookups.submit(key))

    def _look_up(self, keys: Sequence[str]) -> Sequence[Caller | None]:
        with read_session(self._home.engine) as session:
            callers = {key: caller_of_key(session, key) for key in set(keys)}
        return [callers[key] for key in keys]


async def caller_of(request: Request, _credentials: Credentials) -> Caller:
    """Return who calls; no key, a wrong one and a revoked one are told the same."""
    return await _caller(request)


async def admit(request: Request, *roles: Role) -> Caller:
    """Let only these roles pass: for a route that is called so often that dependencies cost more than its work."""
    return _check(await _caller(request), roles)


async def _caller(request: Request) -> Caller:
    given = request.headers.getlist("authorization")
    # Two keys in one request might be judged differently on their way here.
    scheme, key = get_authorization_scheme_param(given[0]) if len(given) == 1 else ("", "")
    if scheme.lower() != "bearer":
        raise NotSignedInError
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    caller = await doorkeeper.caller(key)
    if caller is None:
        raise NotSignedInError
    return caller


def _check(caller: Caller, roles: Collection[Role]) -> Caller:
    if caller.role not in roles:
        raise NotAllowedError(f"a key of role {caller.role} cannot do this; it needs the role {' or '.join(roles)}")
    return caller


def allowed(*roles: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """Return a dependency that lets only these roles pass."""

    async def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        return _check(caller, roles)

    return check


Collector = Annotated[Caller, Depends(allowed("collector"))]
Reader = Annotated[Caller, Depends(allowed("customer", "finance"))]
UsageReader = Annotated[Caller, Depends(allowed("customer", "finance", "operator"))]
# Who tends usage: says what is wrong with events, and accepts gaps.
Tending = Annotated[Caller, Depends(allowed("finance", "operator"))]
EventReader = Annotated[Caller, Depends(allowed("customer", "finance", "operator", "collector"))]
GapReader = Annotated[Caller, Depends(allowed("finance", "operator", "collector"))]
