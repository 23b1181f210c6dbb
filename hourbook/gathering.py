"""Work done for many callers at once: whoever waits at the same moment is served together, and nobody waits unseen."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class OverloadedError(Exception):
    """More waits already than is taken; nothing of what was sent was kept."""


class _Waiting(NamedTuple, Generic[Item, Result]):
    item: Item
    weight: int
    answer: Future[Result]


class Gathering(Generic[Item, Result]):
    """Gathers what is submitted while its workers are busy, and hands it to `work` in groups.

    `work` returns for each item a result, or the exception that its caller gets. Work on a group begins after all its
    items were submitted, so what it reads is never older than the question.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, workers: int, most: int, group: int
    ) -> None:
        self._work = work
        self._workers, self._most, self._group = workers, most, group
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._lock = Lock()
        self._running = 0
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="gathering")

    def submit(self, item: Item, weight: int = 1) -> Future[Result]:
        """Ask for an item's result; refused where too many wait already. Groups are made up to a weight."""
        answer: Future[Result] = Future()
        with self._lock:
            if len(self._waiting) >= self._most:
                raise OverloadedError(f"{len(self._waiting)} requests wait already; send the same again later")
            self._waiting.append(_Waiting(item, weight, answer))
            wanted = self._running < self._workers
            self._running += wanted
        if wanted:
            self._threads.submit(self._run)
        return answer

    def _run(self) -> None:
        while group := self._next():
            try:
                results = self._work([one.item for one in group])
            except BaseException as error:
                log.exception("work for %d callers failed", len(group))
                told = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
                results = [told] * len(group)
            for one, result in zip(group, results, strict=True):
                _answer(one.answer, result)

    def _next(self) -> list[_Waiting[Item, Result]]:
        """Take the next group; nothing where none waits, and then this worker is done."""
        group: list[_Waiting[Item, Result]] = []
        weight = 0
        with self._lock:
            while self._waiting and (not group or weight + self._waiting[0].weight <= self._group):
                group.append(self._waiting.popleft())
                weight += group[-1].weight
            self._running -= not group
        return group


def _answer(future: Future[Result], result: Result | Exception) -> None:
    if not future.set_running_or_notify_cancel():
        return  # whoever asked has gone
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class Room:
    """So many bytes, shared by all requests: what is being read and what waits never takes more memory than that."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = Lock()

    @contextmanager
    def reserved(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes bytes of the room, or refuses; at the end all that was taken is given back."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            with self._lock:
                if size > self._left:
                    raise OverloadedError("too much is being sent at once; send the same again later")
                self._left -= size
            taken += size

        try:
            yield take
        finally:
            with self._lock:
                self._left += taken
