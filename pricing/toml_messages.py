"""What a model found wrong, in the words of the person who wrote the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pricing.problems import Problem

_LONGEST_VALUE = 80


def problem_of(model: type[BaseModel], table: str, detail: ErrorDetails) -> Problem:
    """Say which key of the entry is wrong, what stands there and what would be right."""
    loc = detail["loc"]
    missing = detail["type"] == "missing"
    whole_entry = isinstance(detail["input"], (dict, BaseModel))
    value = "" if missing or whole_entry else _shown(detail["input"])
    return Problem(_message(model, detail), table=table, key=_path(loc), value=value)


def _message(model: type[BaseModel], detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "is missing; it must be given"
    if detail["type"] == "extra_forbidden":
        owner = _model_at(model, detail["loc"][:-1])
        known = sorted(owner.model_fields) if owner else []
        near = get_close_matches(str(detail["loc"][-1]), known, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        return f"there is no such key; {meant}known are {', '.join(known)}"
    return detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _path(loc: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _shown(value: object) -> str:
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model of the nested entry at a place, where there is one."""
    found: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and found is not None:
            field = found.model_fields.get(part)
            found = next(_models_in(field.annotation), None) if field else None
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - an annotation has no narrower type
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {tuple, list, Union, UnionType}:
        for part in get_args(annotation):
            yield from _models_in(part)
