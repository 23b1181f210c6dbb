"""A document that does not add up is noticed before anybody pays it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from invoices.document import DocumentContent, ShareRow
from invoices.document_check import discrepancies

Make = Callable[..., DocumentContent]


@pytest.fixture
def sound(invoice: Make) -> DocumentContent:
    content = invoice()
    return replace(content, by_project=(ShareRow("llm", "", {}, content.total_minor),), by_user=())


def test_a_sound_invoice_has_no_discrepancies(sound: DocumentContent) -> None:
    assert discrepancies(sound) == []


@pytest.mark.parametrize("figure", ["total_minor", "tax_minor", "net_minor"])
def test_a_total_that_is_a_cent_off_is_named(sound: DocumentContent, figure: str) -> None:
    off = replace(sound, **{figure: getattr(sound, figure) + 1})
    assert any(f"the {figure.removesuffix('_minor')} says" in found for found in discrepancies(off))


def test_a_line_must_equal_what_was_drawn_for_it_on_this_document(sound: DocumentContent) -> None:
    amount = sound.lines[0].amount_minor
    first = replace(sound.lines[0], parts={"credit": amount - 5, "lot": 5})
    (found,) = discrepancies(replace(sound, lines=(first, *sound.lines[1:])))
    assert found == f"line 1 stands here with {amount}, drawn here is {amount - 5}"


def test_shares_that_miss_a_cent_are_named(sound: DocumentContent) -> None:
    off = replace(sound, by_user=(ShareRow("li.na", "", {}, sound.total_minor - 1),))
    assert any("by user" in found for found in discrepancies(off))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"closing_minor": 6_753_089}, "the wallet closes"),
        ({"arrears_closing_minor": 1}, "arrears closes"),
        ({"settled_arrears_minor": 0}, "the wallet closes"),
    ],
)
def test_a_wallet_that_does_not_run_through_is_named(statement: Make, changed: dict[str, Any], name: str) -> None:
    wallet = statement().wallet
    assert wallet is not None
    content = statement(wallet=replace(wallet, lots=(), **changed))
    assert any(name in found for found in discrepancies(content))


def test_a_pack_is_checked_to_its_last_digit(statement: Make) -> None:
    wallet = statement().wallet
    assert wallet is not None
    (pack,) = wallet.packs
    content = statement(wallet=replace(wallet, packs=(replace(pack, closing="76543.211001"),)))
    assert any("pack-2026-007 closes" in found for found in discrepancies(content))
