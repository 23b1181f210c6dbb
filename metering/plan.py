"""The rollup plan: where spans are cut and which measures are counted. Pure data, numbered by the store."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Measure(BaseModel):
    """What one attempt counts for where that is not a resource by itself. `[[measures]]` in TOML.

    Seconds of `quantity` over the attempt, if `when` holds for it, in the scope of clusters and partitions
    (empty: all). The rollup names it `measure:<name>`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    quantity: Literal["cpu", "node", "wall"]
    when: Literal["always", "no_cards", "cards"] = "always"
    clusters: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()


class RollupPlan(BaseModel):
    """Zones whose day borders cut spans, and the measures; equal plans give equal rollups."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zones: tuple[str, ...]  # sorted IANA names; a day in any of them is a sum of spans
    hourly: bool = False  # cut at every full hour UTC too (zones with whole-hour offsets)
    measures: tuple[Measure, ...] = ()
