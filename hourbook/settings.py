"""Settings from the environment, and the home: the folder, database and clock that everything works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import Engine

from base.period import local_day
from metering.object_store import Place, place_of

DATABASE_FILE = "hourbook.sqlite"


class Settings(BaseSettings):
    """What the environment says: variables named HOURBOOK_…, as in HOURBOOK_HOME."""

    model_config = SettingsConfigDict(env_prefix="HOURBOOK_", extra="ignore")

    home: Path = Path("hourbook-data")
    database_url: str = ""  # "" means the SQLite file in the home
    lake: str = ""  # "" means the folder `lake` in the home; else another folder, or s3://bucket/prefix
    public_url: str = "http://127.0.0.1:8000"  # where customers reach the pages; Stripe sends them back there
    stripe_api_key: SecretStr = SecretStr("")
    stripe_webhook_secret: SecretStr = SecretStr("")
    stripe_api_base: str = "https://api.stripe.com"
    accrue_every_seconds: int = Field(default=5, ge=1)
    # What a server takes before it answers 429: requests and bytes at once, and events that wait for the sealer.
    ingest_waiting_requests: int = Field(default=1_000, ge=1)
    ingest_waiting_mib: int = Field(default=128, ge=16)
    ingest_unsealed_events: int = Field(default=10_000_000, ge=1)

    def url_of(self, home: Path) -> str:
        """Return the address of the database of a home."""
        return self.database_url or f"sqlite:///{home / DATABASE_FILE}"

    def lake_of(self, home: Path) -> Place:
        """Return where the event lake of a home lies."""
        return place_of(self.lake) if self.lake else home / "lake"


def system_clock() -> datetime:
    """Return the present instant, from the machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Home:
    """The folder with the database and the lake, and the clock by which everything in it is reckoned."""

    path: Path
    engine: Engine
    fixed_clock: datetime | None = None  # set once by `init --clock`: the demo's homes stand at one instant
    clock: Callable[[], datetime] = system_clock
    lake_place: Place | None = None  # where the lake lies, if not in the home

    def now(self) -> datetime:
        """Return the instant that counts as now in this home."""
        return self.fixed_clock or self.clock()

    def today(self, zone: ZoneInfo) -> date:
        """Return the day that counts as today in a zone."""
        return local_day(self.now(), zone)

    @property
    def lake(self) -> Place:
        """Where the event lake lies: a folder, or a prefix in an object store."""
        return self.lake_place or self.path / "lake"

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()
