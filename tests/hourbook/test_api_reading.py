"""What programs read: usage, balances, documents and PDFs, each customer its own and nothing else."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hourbook.accruing import accrue_open_months
from hourbook.applying import apply_files
from hourbook.database import read_session, run_write, write_session
from hourbook.errors import INTERNAL
from invoices import store as invoices
from tests.hourbook.served import INVOICE, MONTH, NORTH, SOUTH, STATEMENT, Served, content_of_database, served

NOVEMBER = {"from": "2026-11-01", "to": "2026-11-30"}
NOTHING = {"error": {"code": "not_found", "message": "there is nothing here for this key"}}


@pytest.fixture(scope="module")
def hourbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("reading")) as one:
        yield one


def usage(hourbook: Served, who: str, **parameters: str) -> list[dict[str, Any]]:
    answer = hourbook.get("/v1/usage", who, **{**NOVEMBER, **parameters})
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    return rows


def test_finance_sees_all_usage_and_a_customer_its_own(hourbook: Served) -> None:
    rows = {row["customer"]: row for row in usage(hourbook, "finance", by="customer")}
    assert {name: row["jobs"] for name, row in rows.items()} == {NORTH: 18, SOUTH: 6}
    assert usage(hourbook, "own", by="customer") == [rows[NORTH]]
    assert usage(hourbook, "other", by="customer") == [rows[SOUTH]]
    assert usage(hourbook, "finance", by="customer", customer=SOUTH) == [rows[SOUTH]]
    assert rows[NORTH]["core_hours"] == "1440.000000"
    assert rows[NORTH]["card_hours"] == "36.000000"


def test_an_operator_sees_usage_as_it_was_metered_and_nothing_of_customers(hourbook: Served) -> None:
    by = "day,cluster,partition,qos,account,user"
    assert usage(hourbook, "operator", by=by) == usage(hourbook, "finance", by=by)
    for asked in ({"by": "cluster,customer"}, {"by": "sku"}, {"by": "cluster", "customer": NORTH}):
        answer = hourbook.get("/v1/usage", "operator", **NOVEMBER, **asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert (
        "customer needs the role finance"
        in hourbook.get("/v1/usage", "operator", **NOVEMBER, by="day,customer").json()["error"]["message"]
    )


def test_usage_is_cut_by_the_days_of_the_zone_asked_for(hourbook: Served) -> None:
    in_shanghai = usage(hourbook, "own", by="day", to="2026-11-05")
    assert [(row["day"], row["core_hours"]) for row in in_shanghai] == [("2026-11-05", "80.000000")]
    in_utc = usage(hourbook, "own", by="day", to="2026-11-05", timezone="UTC")
    assert [(row["day"], row["core_hours"]) for row in in_utc] == [
        ("2026-11-04", "80.000000"),
        ("2026-11-05", "80.000000"),
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        {"by": "day,colour"},
        {"by": "day,day"},
        {"by": "x" * 300},
        {"timezone": "Mars/Olympus"},
        {"timezone": "../../../etc/passwd"},
        {"timezone": "Asia"},
        {"timezone": ""},
        {"from": "2026-12-02"},
        {"from": "1999-01-01"},
        {"from": "yesterday"},
        {"from": "0001-01-01", "to": "9999-12-31"},
        {"from": "2020-01-01"},
        {"from": "2026-09-01", "by": "hour"},
        {"colour": "blue"},
        {"customer": "u" * 100},
    ],
)
def test_a_question_that_makes_no_sense_is_refused_in_words(hourbook: Served, parameters: dict[str, str]) -> None:
    answer = hourbook.get("/v1/usage", "finance", **{**NOVEMBER, **parameters})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert answer.json()["error"]["message"]


def test_a_balance_is_told_in_decimals_as_text(hourbook: Served) -> None:
    body = hourbook.get(f"/v1/customers/{NORTH}/balance").json()
    assert body["prepaid"] == "712.00"  # 1,000 less 18 attempts of 2 h × (40 cores × 0.10 + 1 card × 4)
    assert (body["available"], body["arrears"], body["used_per_day"], body["days_left"]) == (
        "712.00",
        "0.00",
        "6.86",
        103,
    )
    assert {source["kind"]: source["rest"] for source in body["sources"]} == {"lot": "712.00", "pack": "100"}
    south = hourbook.get(f"/v1/customers/{SOUTH}/balance", "finance").json()
    assert (south["credit_limit"], south["credit_used"], south["available"]) == ("500.00", "96.00", "404.00")
    assert all(isinstance(value, str) for name, value in body.items() if name not in {"days_left", "sources"})


def test_documents_are_listed_and_told_in_full(hourbook: Served) -> None:
    listed = hourbook.get("/v1/invoices", "finance", month=MONTH).json()["invoices"]
    assert [(one["number"], one["customer"], one["total"], one["open"]) for one in listed] == [
        (INVOICE, SOUTH, "96.00", "96.00"),
        (STATEMENT, NORTH, "288.00", "0.00"),
    ]
    assert [one["number"] for one in hourbook.get("/v1/invoices", "own", month=MONTH).json()["invoices"]] == [STATEMENT]
    assert [one["number"] for one in hourbook.get("/v1/invoices", "other").json()["invoices"]] == [INVOICE]
    assert hourbook.get("/v1/invoices", "own", month="2026-10").json() == {"invoices": []}
    one = hourbook.get(f"/v1/invoices/{STATEMENT}").json()
    with read_session(hourbook.home.engine) as session:
        text = invoices.document(session, STATEMENT).content
    assert one["content_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert sum(int(line["amount_minor"]) for line in one["content"]["lines"]) == 28_800


def test_finance_names_a_month_or_a_customer(hourbook: Served) -> None:
    assert hourbook.get("/v1/invoices", "finance").status_code == 422
    assert len(hourbook.get("/v1/invoices", "finance", customer=NORTH).json()["invoices"]) == 1


def test_a_pdf_has_the_same_bytes_every_time_and_its_first_is_noted(tmp_path: Path) -> None:
    with served(tmp_path) as hourbook:
        first, again = (hourbook.get(f"/v1/invoices/{STATEMENT}/pdf") for _ in range(2))
        assert first.headers["content-type"] == "application/pdf"
        assert first.content == again.content
        assert first.content.startswith(b"%PDF")
        with read_session(hourbook.home.engine) as session:
            assert invoices.rendering_of(session, STATEMENT) == hashlib.sha256(first.content).hexdigest()


def test_a_pdf_that_would_differ_from_the_first_is_not_handed_out(tmp_path: Path) -> None:
    with served(tmp_path) as hourbook:
        run_write(hourbook.home.engine, lambda s: invoices.keep_rendering(s, STATEMENT, b"another template"))
        answer = hourbook.get(f"/v1/invoices/{STATEMENT}/pdf")
        assert (answer.status_code, answer.json()["error"]["message"]) == (500, INTERNAL.message)


@pytest.mark.parametrize(
    ("others", "missing", "parameters"),
    [
        (f"/v1/customers/{SOUTH}/balance", "/v1/customers/nobody/balance", {}),
        (f"/v1/invoices/{INVOICE}", "/v1/invoices/INV-2026-99999", {}),
        (f"/v1/invoices/{INVOICE}/pdf", "/v1/invoices/INV-2026-99999/pdf", {}),
        ("/v1/usage", "/v1/usage", NOVEMBER),
        ("/v1/invoices", "/v1/invoices", {"month": MONTH}),
    ],
)
def test_anothers_data_looks_exactly_like_data_that_is_not_there(
    hourbook: Served, others: str, missing: str, parameters: dict[str, str]
) -> None:
    narrowed = [{**parameters, "customer": name} for name in (SOUTH, "nobody")] if parameters else [{}, {}]
    answers = [hourbook.get(path, "own", **more) for path, more in zip((others, missing), narrowed, strict=True)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json() == NOTHING
    assert hourbook.get(others, "finance", **narrowed[0]).status_code == 200


@pytest.mark.parametrize("number", ["INV-2026-1", "inv-2026-00001", "9" * 500, "%2e%2e", "INV-2026-00001%0a"])
def test_a_number_that_is_none_finds_nothing(hourbook: Served, number: str) -> None:
    assert hourbook.get(f"/v1/invoices/{number}", "finance").status_code in {404, 422}


def test_reading_waits_for_no_writer(hourbook: Served) -> None:
    """Somebody holds the write lock all the while."""
    answers: list[int] = []

    def read() -> None:
        paths = (f"/v1/customers/{NORTH}/balance", f"/v1/invoices/{STATEMENT}", "/v1/invoices")
        answers.extend(hourbook.get(path).status_code for path in paths)
        answers.append(hourbook.get("/v1/usage", **NOVEMBER).status_code)

    with write_session(hourbook.home.engine):
        reader = threading.Thread(target=read)
        reader.start()
        reader.join(timeout=8)
        assert not reader.is_alive()
    assert answers == [200, 200, 200, 200]


def test_what_nobody_expected_says_nothing_about_itself(hourbook: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("SELECT secret FROM api_key")

    monkeypatch.setattr("hourbook.api.customers.counted_balance", fail)
    answer = hourbook.get(f"/v1/customers/{NORTH}/balance")
    assert answer.status_code == 500
    assert answer.json() == {"error": {"code": "internal", "message": INTERNAL.message}}
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_figures_wait_until_usage_is_counted_under_new_configuration(tmp_path: Path) -> None:
    change = tmp_path / "measure.toml"
    change.write_text('[[measures]]\nname = "cores"\nquantity = "cpu"\nwhen = "no_cards"\n', encoding="utf-8")
    with served(tmp_path) as hourbook:
        apply_files(hourbook.home, [change])
        answer = hourbook.get(f"/v1/customers/{NORTH}/balance")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "counting")
        assert answer.headers["retry-after"] == "5"
        accrue_open_months(hourbook.home)
        assert hourbook.get(f"/v1/customers/{NORTH}/balance").status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer x", "Basic {key}", "bearer{key}", "Bearer {key}x", "Bearer hb_" + "0" * 5000],
)
def test_no_key_and_a_wrong_key_are_told_the_same(hourbook: Served, header: str) -> None:
    headers = {"Authorization": header.replace("{key}", hourbook.keys["own"])} if header else {}
    answer = hourbook.client.get(f"/v1/customers/{NORTH}/balance", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"]["code"] == "unauthorized"


def test_two_keys_in_one_request_are_none(hourbook: Served) -> None:
    two = [("Authorization", f"Bearer {hourbook.keys[who]}") for who in ("own", "finance")]
    assert hourbook.client.get(f"/v1/customers/{NORTH}/balance", headers=two).status_code == 401


def test_reading_leaves_the_database_as_it_is(hourbook: Served) -> None:
    before = content_of_database(hourbook.home)
    hourbook.get(f"/v1/customers/{NORTH}/balance")
    hourbook.get("/v1/usage", **NOVEMBER)
    hourbook.get("/v1/invoices")
    assert content_of_database(hourbook.home) == before
