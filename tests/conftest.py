"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pydantic import BaseModel

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class _Warm(BaseModel):
    value: int


# Used first inside a frozen clock, polars and pydantic would stay broken for the whole process.
pl.DataFrame({"warm": [1]}).lazy().select(pl.col("warm").sum()).collect()
_Warm(value=1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real logs with independent truth, where it is at hand."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real logs of ../shared/data, which are not here")
    return SHARED_DATA
