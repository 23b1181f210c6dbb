"""One turn after the other: ask sacct for what is due, spool it, send what the spool holds."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .asking import CollectError, Slurm, Window, longest_limit, rows_of, stamp
from .hours import AT, is_live, statements
from .sending import LATER, REFUSED, SENT, Server, wait_after
from .spool import Pull, Spool
from .windows import SETTLING, Rhythm, due_windows, lookback_for, sweep_is_due

MOST_REMEMBERED = 500_000
IN_A_ROW = AT["JobName"]  # delimiters in a whole row


@dataclass
class Collector:
    """Collects one cluster: everything it needs, and what it remembers while it runs."""

    slurm: Slurm
    server: Server
    spool: Spool
    rhythm: Rhythm
    most_bytes: int = 2 * 2**30
    since: int | None = None
    lookback_given: bool = False
    failures: int = 0
    not_before: float = 0.0
    spooled: set[bytes] = field(default_factory=set)  # rows that need not be spooled again until the next sweep

    def pull(self, now: int) -> None:
        """Ask for all windows that are due, and spool the answers."""
        state = self.spool.remembered()
        sweep = sweep_is_due(state, now, self.rhythm) or self.since is not None
        if sweep:
            self.spooled.clear()
            if not self.lookback_given:
                self.rhythm = replace(self.rhythm, lookback=lookback_for(longest_limit(self.slurm)))
        for window in due_windows(state, now, self.rhythm, self.since):
            self._check_room()
            self._pull_window(window, now)
            state = {"swept_at": 0, **state, "pulled_until": max(window[1], state.get("pulled_until", 0))}
            self.spool.remember(state)
        if sweep:
            self.spool.remember({**state, "swept_at": now})
            self.since = None

    def _check_room(self) -> None:
        held = self.spool.bytes_held()
        if held > self.most_bytes:
            raise CollectError(
                f"the spool {self.spool.folder} holds {held:,} bytes that the server did not take, more than "
                f"{self.most_bytes:,}: nothing more is asked until it takes them; Slurm keeps the rows meanwhile"
            )

    def _pull_window(self, window: Window, now: int) -> None:
        pull = Pull(self.spool, window)
        mark, all_rows = pull.delimiter.encode(), 0
        try:
            for row in rows_of(self.slurm, window, pull.delimiter):
                all_rows += 1
                cells = row.decode(errors="replace").split(pull.delimiter, IN_A_ROW)
                whole = len(cells) > IN_A_ROW
                if whole:
                    pull.note(cells)
                key = self._key(row.replace(mark, b"\0"), cells if whole else ())
                if key not in self.spooled:
                    pull.add(row)
                    pull.keys.append(key)
            settled = (window[0], min(window[1], now - SETTLING))
            pull.keep(statements(self.slurm.cluster, settled, pull.attempts))
        except BaseException:
            pull.drop()
            raise
        if len(self.spooled) > MOST_REMEMBERED:
            self.spooled.clear()
        self.spooled.update(pull.keys)
        say(f"{stamp(window[0])} to {stamp(window[1])}: {all_rows:,} row(s), {pull.rows:,} of them new")

    def _key(self, row: bytes, cells: Sequence[str]) -> bytes:
        """Tell a row from others; a running job's row is new again only after a while."""
        if cells and is_live(cells):
            elapsed = cells[AT["ElapsedRaw"]]
            turn = int(elapsed) // self.rhythm.running_every if elapsed.isdigit() else 0
            steady = (cells[AT[name]] for name in ("JobIDRaw", "Submit", "State", "AllocTRES", "Account", "Partition"))
            row = "\0".join((*steady, str(turn))).encode()
        return hashlib.blake2b(row, digest_size=16).digest()

    def send(self) -> bool:
        """Send all that waits, oldest first; tell whether the spool is empty."""
        if time.monotonic() < self.not_before:
            return False
        for path in self.spool.waiting():
            sent = self.server.send(path)
            if sent.said:
                say(f"{path.name}: {sent.said}")
            if sent.status == LATER:
                self.not_before = time.monotonic() + wait_after(self.failures, sent.wait_seconds)
                self.failures += 1
                return False
            self.failures = 0
            if sent.status == SENT:
                path.unlink()
            elif sent.status == REFUSED:
                self.spool.refuse(path)
                say(f"{path.name} lies in {self.spool.folder / 'refused'} now; nothing of it was recorded")
        return True

    def turn(self, now: int) -> bool:
        """Pull what is due and send what waits; what is in the way is told. Tell whether all went well."""
        pulled = True
        try:
            self.pull(now)
        except (CollectError, OSError) as error:
            pulled = False
            say(str(error))
        return self._sent() and pulled

    def run(self, interval: int) -> None:
        """Go on for ever: a turn per interval, and between turns what could not be sent before."""
        while True:
            due = time.monotonic() + interval
            self.turn(int(time.time()))
            while time.monotonic() < due:
                time.sleep(max(0.0, min(due - time.monotonic(), max(1.0, self.not_before - time.monotonic()))))
                self._sent()

    def _sent(self) -> bool:
        try:
            return self.send()
        except (CollectError, OSError) as error:
            say(str(error))
            return False


def say(text: str) -> None:
    """Tell the log what happened."""
    print(f"{stamp(int(time.time()))}Z {text}", file=sys.stderr, flush=True)  # noqa: T201
