"""Where a server asks for a Slurm cluster's accounting by itself, and how far back."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

_ADDRESS = re.compile(r"unix:/[^\s?#]+|https?://[^\s/?#]+(/[^\s?#]*)?")


class SlurmAccess(BaseModel):
    """Slurm's accounting as the server reaches it: `sacct` on its own machine, or slurmrestd."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = ""  # of slurmrestd: http://host:6820, or unix:/run/slurmrestd.socket; "": run sacct
    api: str = Field(default="v0.0.40", pattern=r"^v[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$")
    user: str = Field(default="", max_length=64)
    token_file: str = ""  # holds the user's JWT (scontrol token), for its owner only
    programs: str = ""  # folder of sacct and sinfo
    overlap_seconds: int = Field(default=7200, ge=600, le=10**8)
    lookback_seconds: int | None = Field(default=None, ge=3600, le=10**9)  # None: twice the longest time limit
    sweep_seconds: int = Field(default=21_600, ge=60, le=10**8)
    running_seconds: int = Field(default=900, ge=1, le=86_400)
    timeout_seconds: int = Field(default=600, ge=1, le=3600)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url and not _ADDRESS.fullmatch(url):
            raise ValueError(
                f"{url!r} is no address; write it as http://slurm.example.cn:6820 or unix:/run/rest.socket"
            )
        return url.rstrip("/")
