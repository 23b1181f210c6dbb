"""What is wrong with the configuration: an error as a value that names its place and what would be right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One reason why the configuration cannot be taken as it is."""

    message: str  # what is wrong, and what would be right
    table: str = ""  # as TOML names it, e.g. "contracts"
    key: str = ""  # within the entry, e.g. "prices[0].unit_price"
    value: str = ""  # as written; "" where nothing was written
    entry: str = ""  # fact key of the entry, e.g. "core-hour@2026-11-01"
    file: str = ""
    line: int = 0  # 0 where no line is to blame

    def __str__(self) -> str:
        place = ":".join(part for part in (self.file, str(self.line or "")) if part)
        what = " ".join(part for part in (f"[{self.table}]" if self.table else "", self.entry, self.key) if part)
        value = f" = {self.value}" if self.value else ""
        return ": ".join(part for part in (place, f"{what}{value}", self.message) if part)
