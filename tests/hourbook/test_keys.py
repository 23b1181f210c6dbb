"""Keys: shown once, kept as a hash, bound to a role, ended at once; sessions that run out."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select
from typer.testing import CliRunner

from hourbook import facts, keys
from hourbook.cli.main import app
from hourbook.cli.server import is_loopback
from hourbook.database import create_home, read_session, run_write, write_session
from hourbook.keys import Caller, KeyRefusedError, Role, caller_of_key, caller_of_session, create_key, revoke_key
from hourbook.receiving import UnknownCustomerError
from hourbook.settings import Home

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
NORTH = {"id": "u-north", "name": "北方大学", "kind": "university"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = create_home(tmp_path / "home", NOW)
    with write_session(made.engine) as session:
        facts.record(session, {("customer", "u-north"): NORTH}, NOW)
    yield made
    made.close()


def made_key(home: Home, role: Role = "finance", customer: str = "") -> str:
    return run_write(home.engine, lambda session: create_key(session, role, NOW, customer=customer))


def caller(home: Home, key: str) -> Caller | None:
    with read_session(home.engine) as session:
        return caller_of_key(session, key)


def test_a_key_opens_what_its_role_and_customer_say(home: Home) -> None:
    own = caller(home, made_key(home, "customer", "u-north"))
    assert own is not None
    assert (own.role, own.customer) == ("customer", "u-north")
    assert own.may_see("u-north")
    assert not own.may_see("u-south")
    finance = caller(home, made_key(home, "finance"))
    assert finance is not None
    assert finance.may_see("u-north")
    collector = caller(home, made_key(home, "collector"))
    assert collector is not None
    assert not collector.may_see("u-north")
    assert not collector.may_see("")


def test_a_secret_has_256_bits_and_is_nowhere_in_the_database(home: Home) -> None:
    key = made_key(home)
    secret = key.rsplit("_", 1)[1]
    assert len(bytes.fromhex(secret)) == 32
    with read_session(home.engine) as session:
        token = run_write(home.engine, lambda s: keys.start_session(s, caller_of_key(session, key) or missing(), NOW))
    with closing(sqlite3.connect(home.path / "hourbook.sqlite")) as connection:
        dump = "\n".join(connection.iterdump())
    assert secret not in dump
    assert token not in dump
    assert hashlib.sha256(secret.encode()).hexdigest() in dump


def missing() -> Caller:
    raise AssertionError("the key should be known")


def test_no_two_keys_are_alike(home: Home) -> None:
    assert len({made_key(home) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"),
        lambda key: key.upper(),
        lambda key: key + "0",
        lambda key: key[:-1],
        lambda key: " " + key,
        lambda key: key.replace("hb_", "HB_"),
        lambda key: f"hb_000000000000_{key.rsplit('_', 1)[1]}",
        lambda _: "",
        lambda _: "hb__",
        lambda _: "hb_" + "é" * 12 + "_" + "0" * 64,
    ],
)
def test_anything_but_the_key_itself_opens_nothing(home: Home, change) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    key = made_key(home)
    assert caller(home, change(key)) is None
    assert caller(home, key) is not None


def test_a_secret_goes_only_with_its_own_id(home: Home) -> None:
    first, second = made_key(home), made_key(home, "collector")
    assert caller(home, "_".join((*first.split("_")[:2], second.split("_")[2]))) is None


def test_secrets_are_compared_in_constant_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert caller(home, made_key(home)) is not None
    assert caller(home, f"hb_{'0' * 12}_{'0' * 64}") is None
    # The unknown id is compared too, with a hash that nothing has.
    assert [len(other) for _, other in compared] == [64, 64]


def test_a_revoked_key_is_refused_at_once_and_stays_listed(home: Home) -> None:
    key = made_key(home)
    key_id = key.split("_")[1]
    assert run_write(home.engine, lambda session: revoke_key(session, key_id, NOW))
    assert caller(home, key) is None
    assert not run_write(home.engine, lambda session: revoke_key(session, key_id, NOW + timedelta(days=1)))
    with read_session(home.engine) as session:
        (entry,) = keys.list_keys(session)
    assert (entry.id, entry.revoked_at) == (key_id, NOW)


def test_a_key_names_a_customer_exactly_when_it_is_a_customers(home: Home) -> None:
    with pytest.raises(KeyRefusedError, match="names its customer"):
        made_key(home, "customer")
    with pytest.raises(KeyRefusedError, match="names its customer"):
        made_key(home, "finance", "u-north")
    with pytest.raises(UnknownCustomerError):
        made_key(home, "customer", "u-nobody")
    with pytest.raises(KeyRefusedError, match="no key"):
        run_write(home.engine, lambda session: revoke_key(session, "000000000000", NOW))


@pytest.mark.parametrize("table", ["api_key", "api_key_revocation"])
@pytest.mark.parametrize("change", ["DELETE FROM {table}", "UPDATE {table} SET id = id"])
def test_keys_and_their_ends_are_never_edited(home: Home, table: str, change: str) -> None:
    key = made_key(home)
    run_write(home.engine, lambda session: revoke_key(session, key.split("_")[1], NOW))
    with pytest.raises(IntegrityError, match="append-only"), write_session(home.engine) as session:
        session.connection().exec_driver_sql(change.format(table=table))


def signed_in(home: Home) -> tuple[str, str]:
    key = made_key(home)
    found = caller(home, key) or missing()
    return key, run_write(home.engine, lambda session: keys.start_session(session, found, NOW))


def of_session(home: Home, token: str, after: timedelta) -> Caller | None:
    with read_session(home.engine) as session:
        return caller_of_session(session, token, NOW + after)


def test_a_session_ends_after_a_while_without_a_visit(home: Home) -> None:
    _, token = signed_in(home)
    assert of_session(home, token, keys.SESSION_IDLE - timedelta(seconds=1)) is not None
    assert of_session(home, token, keys.SESSION_IDLE) is None


def test_a_session_ends_at_its_longest_however_often_it_is_used(home: Home) -> None:
    _, token = signed_in(home)
    step = timedelta(hours=1)
    for hour in range(1, 12):
        assert of_session(home, token, hour * step) is not None

        def visit(session: Session, at: datetime = NOW + hour * step) -> None:
            assert keys.visit_is_due(session, token, at)
            keys.note_visit(session, token, at)

        run_write(home.engine, visit)
    assert of_session(home, token, keys.SESSION_LONGEST - timedelta(seconds=1)) is not None
    assert of_session(home, token, keys.SESSION_LONGEST) is None


def test_a_session_ends_with_its_key_and_when_signed_out(home: Home) -> None:
    key, token = signed_in(home)
    other_key, other = signed_in(home)
    run_write(home.engine, lambda session: keys.end_session(session, token))
    assert of_session(home, token, timedelta(0)) is None
    assert of_session(home, other, timedelta(0)) is not None
    run_write(home.engine, lambda session: revoke_key(session, other_key.split("_")[1], NOW))
    assert of_session(home, other, timedelta(0)) is None
    assert key != other_key


def test_sessions_long_over_are_forgotten(home: Home) -> None:
    _, token = signed_in(home)
    later = NOW + keys.SESSION_LONGEST * 2
    run_write(
        home.engine, lambda session: keys.start_session(session, Caller(token_key(session, token), "finance"), later)
    )
    with read_session(home.engine) as session:
        assert len(session.exec(select(keys.WebSessionRow)).all()) == 1


def token_key(session: Session, token: str) -> str:
    found = caller_of_session(session, token, NOW) or missing()
    return found.key_id


def test_a_form_token_is_good_for_one_browser_only() -> None:
    assert keys.is_form_token("browser-1", keys.form_token("browser-1"))
    assert not keys.is_form_token("browser-2", keys.form_token("browser-1"))
    assert not keys.is_form_token("browser-1", "ü")


def test_the_command_line_makes_lists_and_ends_keys(home: Home) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["--home", str(home.path), "key", *words])
        return result.exit_code, result.stdout

    code, key = run("create", "--role", "customer", "--customer", "u-north")
    assert (code, key[:3]) == (0, "hb_")
    key_id, secret = key.strip().split("_")[1:]
    code, listed = run("list", "--format", "csv")
    assert code == 0
    assert f"{key_id},customer,u-north,2026-12-01T02:00:00+00:00," in listed
    assert secret not in listed
    assert run("revoke", key_id) == (0, f"{key_id} is revoked\n")
    assert caller(home, key.strip()) is None
    assert run("create", "--role", "customer")[0] == 1
    assert run("create", "--role", "root")[0] == 2
    assert run("revoke", "000000000000")[0] == 1


def test_a_key_for_a_cluster_that_is_not_described_is_made_with_a_warning(home: Home) -> None:
    words = ["--home", str(home.path), "key", "create", "--role", "collector", "--cluster", "hpc1", "--cluster", "hcp1"]
    with write_session(home.engine) as session:
        facts.record(session, {("cluster", "hpc1"): {"name": "hpc1"}}, NOW)
    made = CliRunner().invoke(app, words)
    assert (made.exit_code, made.stdout[:3]) == (0, "hb_")
    assert "no cluster hcp1 is described" in made.stderr
    assert "no cluster hpc1" not in made.stderr


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("10.0.0.1", False),
        ("x.org", False),
    ],
)
def test_loopback_is_told_from_the_world(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_home_with_a_fixed_clock_is_not_served_to_the_world(home: Home) -> None:
    result = CliRunner().invoke(app, ["--home", str(home.path), "serve", "--host", "0.0.0.0"])  # noqa: S104
    assert result.exit_code == 1
    assert "fixed" in result.stderr
