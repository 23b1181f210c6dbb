"""A document's content has one text, and that text gives the same document back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import orjson

from invoices.document import DocumentContent, content_hash, from_json, to_json

Make = Callable[..., DocumentContent]


def test_a_statement_read_back_from_its_text_is_the_same_statement(statement: Make) -> None:
    content = statement()
    assert from_json(to_json(content)) == content
    assert to_json(from_json(to_json(content))) == to_json(content)


def test_the_order_in_which_facts_were_put_together_does_not_change_the_text(invoice: Make) -> None:
    one = invoice(pins={"plan": 3, "config_seq": 12})
    other = invoice(pins={"config_seq": 12, "plan": 3})
    assert to_json(one) == to_json(other)


def test_amounts_are_strings_so_that_no_reader_loses_digits(invoice: Make, line: Callable[..., object]) -> None:
    content = invoice(lines=(line(1, 2**60),))
    raw = orjson.loads(to_json(content))
    assert raw["lines"][0]["amount_minor"] == str(2**60)
    assert raw["total_minor"] == str(2**60)
    assert raw["lines"][0]["parts"] == {"credit": str(2**60)}
    assert from_json(to_json(content)).total_minor == 2**60


def test_one_changed_cent_changes_the_hash(invoice: Make) -> None:
    content = invoice()
    assert content_hash(replace(content, total_minor=content.total_minor + 1)) != content_hash(content)
    assert content_hash(invoice()) == content_hash(content)
