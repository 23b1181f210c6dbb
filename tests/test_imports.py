"""The packages form one stack; each vendor has one module."""

from __future__ import annotations

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_imports_go_down_only() -> None:
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS
