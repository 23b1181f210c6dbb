"""Stories of the person who writes configuration: what is read, and how each mistake is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pricing.kinds import KINDS
from pricing.problems import Problem
from pricing.toml_files import TableEntry, facts_of, located, read_tables


def read(folder: Path, text: str) -> tuple[list[TableEntry], list[Problem]]:
    file = folder / "book.toml"
    file.write_text(text, encoding="utf-8")
    return read_tables([file], KINDS)


def only(problems: Sequence[Problem]) -> Problem:
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


PRICE = """
# the book of November
[[prices]]
sku = "core-hour"
effective_from = 2026-11-01
unit_price = 0.10

[[prices]]
sku = "card-hour"
effective_from = 2026-11-01
unit_price = {price}
"""


def test_entries_become_canonical_bodies_under_their_keys(tmp_path: Path) -> None:
    entries, problems = read(tmp_path, PRICE.format(price='"6.500"'))
    assert not problems
    assert [(entry.kind, entry.key, entry.line) for entry in entries] == [
        ("price", "core-hour@2026-11-01", 3),
        ("price", "card-hour@2026-11-01", 8),
    ]
    assert entries[1].body == {
        "sku": "card-hour",
        "effective_from": "2026-11-01",
        "unit_price": "6.5",
        "tiers": [],
        "tier_mode": "graduated",
        "reference": "",
    }


def test_a_price_written_with_other_zeros_is_the_same_price(tmp_path: Path) -> None:
    bodies = [read(tmp_path, PRICE.format(price=price))[0][1].body for price in ("6", "6.0", '"6.00"')]
    assert bodies[0] == bodies[1] == bodies[2]


@pytest.mark.parametrize("price", ["999999999999999999", "0.123456789012345678", "123456789012345678.5"])
def test_every_digit_of_a_price_is_kept(tmp_path: Path, price: str) -> None:
    assert read(tmp_path, PRICE.format(price=price))[0][1].body["unit_price"] == price


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ('"1e3"', "'1e3' is not a plain decimal number such as 1234.56"),
        ("1e-3", None),
        ('"٣"', "'٣' is not a plain decimal number such as 1234.56"),
        ("-1", "it cannot be negative"),
        ("true", "a decimal is needed, bare or quoted, such as 0.08"),
        ("nan", "'NaN' is not a plain decimal number such as 1234.56"),
        ('"0,08"', "'0,08' is not a plain decimal number such as 1234.56"),
    ],
)
def test_only_plain_decimals_are_prices(tmp_path: Path, price: str, expected: str | None) -> None:
    entries, problems = read(tmp_path, PRICE.format(price=price))
    if expected is None:
        assert entries[1].body["unit_price"] == "0.001"
        return
    problem = only(problems)
    assert problem.message == expected
    assert (problem.line, problem.table, problem.key) == (11, "prices", "unit_price")
    assert len(entries) == 1, "the sound entry is still read"


def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    problem = only(read(tmp_path, PRICE.format(price="6\nreferenc = 'x'"))[1])
    assert (problem.line, problem.key, problem.value) == (12, "referenc", "'x'")
    assert "did you mean 'reference'" in problem.message
    assert str(problem) == f"{tmp_path}/book.toml:12: [prices] referenc = 'x': {problem.message}"


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    problem = only(read(tmp_path, "\n[[price]]\nsku = 'x'\n")[1])
    assert (problem.line, problem.table) == (2, "price")
    assert "there is no such table; known are clusters, contracts" in problem.message


def test_a_missing_key_is_blamed_on_its_entry(tmp_path: Path) -> None:
    problem = only(read(tmp_path, "[[skus]]\nid = 'a'\n[[skus]]\nid = 'b'\nproduct = 'service'\nname = 'B'\n")[1][-1:])
    assert (problem.line, problem.key) == (3, "unit")
    assert problem.message == "is missing; it must be given"


def test_two_entries_with_one_key_are_refused_even_across_files(tmp_path: Path) -> None:
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text("\n\n[[prices]]\nsku='x'\neffective_from=2026-01-01\nunit_price=1\n")
    entries, problems = read_tables([tmp_path], KINDS)
    assert len(entries) == 1
    assert only(problems).message == f"stands already in {tmp_path}/a.toml:3; keep one of the two"
    assert (only(problems).file, only(problems).line) == (f"{tmp_path}/b.toml", 3)


CONTRACT = """[[contracts]]
number = "HT-1"
customer = "u-north"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2026-12-31
billing = "prepaid"
[[contracts.prices]]
sku = "core-hour"
effective_from = 2026-01-01
unit_price = 0.07
[[contracts.prices]]
sku = "core-hour"
effective_from = {day}
unit_price = 0.07

[[contracts]]
number = "HT-2"
customer = "u-north"
signed_on = 2026-01-01
valid_from = 2026-01-01
last_day = 2026-12-31
billing = "prepaid"
credit_limit = 5
"""


def test_mistakes_in_nested_tables_and_between_keys_are_found_where_they_stand(tmp_path: Path) -> None:
    nested, whole = read(tmp_path, CONTRACT.format(day='"soon"'))[1]
    assert (nested.line, nested.key, nested.value) == (14, "prices[1].effective_from", "'soon'")
    assert nested.message == "a day is needed, such as 2026-11-01"
    assert (whole.line, whole.key) == (17, "")
    assert whole.message == 'credit_limit and payment_days go only with billing = "credit_line"'


@pytest.mark.parametrize("day", ["2026-11-01T00:00:00", "20261101", '"2026-13-01"', "1"])
def test_a_day_is_a_day_and_nothing_near_it(tmp_path: Path, day: str) -> None:
    problems = read(tmp_path, CONTRACT.format(day=day))[1]
    assert problems[0].key == "prices[1].effective_from"


def test_a_volume_price_needs_tiers(tmp_path: Path) -> None:
    text = "[[prices]]\nsku = 'a'\neffective_from = 2026-01-01\nunit_price = 1\ntier_mode = 'volume'\n"
    [problem] = read(tmp_path, text)[1]
    assert 'tier_mode = "volume" needs tiers; leave it out beside a unit_price' in str(problem)


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        ("[{ up_to = 10, unit_price = 1 }]", "the last tier must be open: leave out up_to = 10"),
        (
            "[{ up_to = 10, unit_price = 1 }, { up_to = 10, unit_price = 1 }, { unit_price = 1 }]",
            "tiers must ascend, but up_to goes 10, 10",
        ),
        ("[{ unit_price = 1 }, { unit_price = 1 }]", "only the last tier may leave out up_to"),
        ("[]", "a price is either unit_price or tiers; give one of them"),
    ],
)
def test_tiers_ascend_and_the_last_is_open(tmp_path: Path, tiers: str, expected: str) -> None:
    text = f"[[prices]]\nsku = 'a'\neffective_from = 2026-01-01\ntiers = {tiers}\n"
    assert only(read(tmp_path, text)[1]).message == expected


def test_a_tier_with_a_wrong_key_is_found_on_its_line(tmp_path: Path) -> None:
    text = (
        "[[prices]]\nsku = 'a'\neffective_from = 2026-01-01\ntiers = [\n"
        "  { up_to = 5, unit_price = 1 },\n  { unit_prize = 2 },\n]\n"
    )
    missing, extra = read(tmp_path, text)[1]
    assert (missing.key, extra.key, extra.line) == ("tiers[1].unit_price", "tiers[1].unit_prize", 6)
    assert "did you mean 'unit_price'" in extra.message


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"\n\n[[prices]\n", 3, "is not TOML"),
        (b"a = 1\n# \xff\n", 2, "is not UTF-8 text"),
        (b'[skus]\nid = "a"\n', 1, "write each entry under a header [[skus]]"),
        (b'[[operator]]\nid = "a"\n', 1, "write each entry under a header [operator]"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    problem = only(read_tables([file], KINDS)[1])
    assert (problem.file, problem.line) == (str(file), line)
    assert message in problem.message


def test_a_path_that_is_not_there_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    _, problems = read_tables([tmp_path / "no.toml", tmp_path], KINDS)
    assert [problem.message for problem in problems] == [
        "cannot be read: No such file or directory",
        "there is no *.toml file in this folder",
    ]


def test_keys_of_mappings_keep_odd_names_apart(tmp_path: Path) -> None:
    header = "[[mappings]]\ncluster = '*'\nproject = 'c/p'\n"
    entries, problems = read(
        tmp_path, f"{header}account = 'a/b'\nuser = 'c'\n{header}account = 'a'\nuser = 'b/c'\nvalid_from = 2026-01-01\n"
    )
    assert not problems
    assert [entry.key for entry in entries] == ["*/a%2Fb/c@", "*/a/b%2Fc@2026-01-01"]


def test_problems_of_the_whole_find_the_entry_they_name(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, PRICE.format(price="6"))
    problem = Problem("no such SKU", table="prices", key="sku", entry="card-hour@2026-11-01")
    elsewhere = Problem("recorded earlier", table="skus", entry="x")
    assert [p.line for p in located([problem, elsewhere], entries)] == [8, 0]
    assert list(facts_of(entries)["price"]) == ["core-hour@2026-11-01", "card-hour@2026-11-01"]
