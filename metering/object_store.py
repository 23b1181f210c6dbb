"""Where a lake may lie: in a folder, or in an object store that speaks like S3. The only module that knows obstore.

Who may use the store, and where it is, come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …), for
whatever reads or writes in it: this module, Delta Lake, polars, and the workers of a cluster.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import S3Store

SCHEME = "s3://"


class ObjectStoreError(RuntimeError):
    """An object store cannot be used, or would not keep its events safe; the message says what to do."""


@dataclass(frozen=True)
class StorePath:
    """A place in an object store; `/` leads further down, as in a folder."""

    url: str  # without a slash at the end

    def __truediv__(self, name: str) -> StorePath:
        return StorePath(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def bucket(self) -> str:
        """What the place lies in; nothing more can be said about a store."""
        return self.url.removeprefix(SCHEME).partition("/")[0]

    def unlink(self, *, missing_ok: bool = True) -> None:
        """Delete the object that lies here. A store does not say whether there was one."""
        if not missing_ok:
            raise ValueError("a store does not say whether there was something to delete")
        import obstore

        folder, _, name = self.url.rpartition("/")
        obstore.delete(_store(folder), name)


Place = Path | StorePath


def place_of(text: str) -> Place:
    """Read where a lake lies: a folder, or `s3://bucket/prefix`."""
    if "://" not in text:
        return Path(text)
    if not text.startswith(SCHEME) or not text.removeprefix(SCHEME).strip("/"):
        raise ObjectStoreError(f"{text!r} is no place for a lake; write a folder, or s3://bucket/prefix")
    return StorePath(text.rstrip("/"))


def assert_safe_store(place: StorePath) -> None:
    """Refuse a store in which the second of two writers of one name would win.

    The lake's log is safe because each version of it is put under a name that must not exist yet. A store that takes
    no notice of that condition would let one sealer overwrite what another has just written.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError

    name = f".only-once-{secrets.token_hex(8)}"
    store = _store(place.url)
    try:
        obstore.put(store, name, b"first", mode="create")
    except BaseError as error:
        raise _unusable(place, error) from error
    try:
        obstore.put(store, name, b"second", mode="create")
    except AlreadyExistsError:
        return
    finally:
        obstore.delete(store, name)
    raise ObjectStoreError(
        f"the store of {place} overwrites an object that was to be put only if it is not there; "
        "events would be lost in it: use a store with conditional writes"
    )


@contextmanager
def naming_store(place: Place) -> Iterator[None]:
    """Let what fails in an object store say which store it is and what to check; in a folder nothing changes."""
    try:
        yield
    except OSError as error:
        if isinstance(place, StorePath):
            raise _unusable(place, error) from error
        raise


def _unusable(place: StorePath, error: Exception) -> ObjectStoreError:
    return ObjectStoreError(
        f"{place} cannot be used: {_why(error)}; see that the store is up and has the bucket {place.bucket!r}, "
        "and check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL "
        "(AWS_ALLOW_HTTP=true for http)"
    )


def _store(url: str) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise ObjectStoreError("a lake in an object store needs the extra s3: pip install 'hourbook[s3]'") from error
    return S3Store.from_url(url)


def _why(error: Exception) -> str:
    """Return what the store said, in one line: its own message where it gave one."""
    said = re.search(r"<Message>(.*?)</Message>", str(error), re.DOTALL)
    return said.group(1) if said else str(error).partition("\n")[0]
