"""The oracle itself, on cases small enough to compute by hand."""

from __future__ import annotations

from datetime import date, datetime
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from .money_oracle import Charge, Pot, Wallet, draw_month, keep_books
from .month_oracle import Log, days_of, expected_month
from .price_oracle import LAST_DAY, Line, LineKey, PriceList, minor, month_lines, read_facts, round_half_away
from .tiny_operator import FACTS, PURCHASES
from .usage_oracle import Use, attempts, instant, local_day, share_out, span_seconds, usage

SHANGHAI = ZoneInfo("Asia/Shanghai")
CLUSTER = {
    "name": "hpc1",
    "timezone": "Asia/Shanghai",
    "cards": [{"gres": "gpu", "model": "a100"}, {"gres": "dcu", "model": "k100"}],
    "card_models": {"k100-pcie": "k100"},
}
HEADER = (
    "JobID|JobIDRaw|Account|User|Partition|QOS|State|Submit|Start|End|ElapsedRaw|Suspended|"
    "NNodes|NCPUS|AllocTRES|NodeList|JobName"
)


def row(job: str, start: str, end: str, **more: str) -> str:
    cells = dict(
        zip(
            HEADER.split("|"),
            f"{job}|{job}|Physics|eve|cpu|normal|COMPLETED|{start}|{start}|{end}|0|00:00:00|1|2|cpu=2,node=1|cn01|name".split(
                "|"
            ),
            strict=True,
        )
    )
    return "|".join((cells | more).values())


def log(tmp_path: Path, *rows: str, name: str = "sacct.psv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    return path


def counted(*files: Path) -> dict[tuple[str, str], int]:
    measures = [{"name": "core_without_cards", "quantity": "cpu", "when": "no_cards"}]
    uses = usage(attempts(CLUSTER, files), [SHANGHAI], measures)
    return {(local_day(use.day_start, SHANGHAI).isoformat(), use.resource): use.seconds for use in uses}


def test_an_attempt_is_cut_at_midnight_and_suspended_time_comes_off_cpus_only(tmp_path: Path) -> None:
    night = row("7", "2026-11-03T23:59:57", "2026-11-04T00:00:04", Suspended="00:00:03")
    # 7 s = 3 + 4; of 3 s suspended 9/7 and 12/7: 1 and 2 by largest remainder.
    assert counted(log(tmp_path, night)) == {
        ("2026-11-03", "cpu"): 4,
        ("2026-11-03", "measure:core_without_cards"): 4,
        ("2026-11-03", "node"): 3,
        ("2026-11-03", "wall"): 3,
        ("2026-11-04", "cpu"): 4,
        ("2026-11-04", "measure:core_without_cards"): 4,
        ("2026-11-04", "node"): 4,
        ("2026-11-04", "wall"): 4,
    }


def test_typed_and_generic_cards_are_the_same_cards(tmp_path: Path) -> None:
    both = row("7", "2026-11-03T12:00:00", "2026-11-03T12:00:10", AllocTRES="cpu=2,gres/gpu=3,gres/gpu:v100=2,node=1")
    dcu = row("8", "2026-11-03T13:00:00", "2026-11-03T13:00:10", AllocTRES="cpu=2,gres/dcu:K100-PCIE=4,node=1")
    cards = {name: n for (_, name), n in counted(log(tmp_path, both, dcu)).items() if name.startswith("card:")}
    assert cards == {"card:v100": 20_000, "card:a100": 10_000, "card:k100": 40_000}


def test_of_the_rows_of_an_attempt_the_latest_counts_in_any_order(tmp_path: Path) -> None:
    running = row("7", "2026-11-03T12:00:00", "Unknown", State="RUNNING", ElapsedRaw="801")
    repaired = row("7", "2026-11-03T12:00:00", "2026-11-03T12:00:00", ElapsedRaw="0")
    first, second = log(tmp_path, running, name="1.psv"), log(tmp_path, repaired, name="2.psv")
    assert counted(first)["2026-11-03", "wall"] == 801
    assert counted(first, second) == counted(second, first) == {}


def test_a_requeued_attempt_counts_beside_the_next_and_a_resized_one_from_its_submit(tmp_path: Path) -> None:
    lost = row("7", "2026-11-03T12:00:00", "2026-11-03T12:00:10", State="REQUEUED")
    again = row("7", "2026-11-03T12:00:20", "2026-11-03T12:00:25")
    resized = row("8", "2026-11-03T12:00:00", "2026-11-03T12:00:30", Submit="2026-11-03T12:00:28")
    assert counted(log(tmp_path, lost, again, resized))["2026-11-03", "wall"] == 10 + 5 + 2


def test_steps_never_started_jobs_and_broken_rows_count_nothing_and_bars_in_a_name_do(tmp_path: Path) -> None:
    step = row("7.batch", "2026-11-03T12:00:00", "2026-11-03T12:00:10")
    never = row("8", "2026-11-03T12:00:00", "2026-11-03T12:00:10", NodeList="None assigned", State="CANCELLED by 7")
    named = row("9", "2026-11-03T12:00:00", "2026-11-03T12:00:01", JobName="a|b|c")
    assert counted(log(tmp_path, step, never, named, "rest of a name"))["2026-11-03", "wall"] == 1


def test_times_and_durations_are_read_as_the_log_writes_them() -> None:
    noon = int(datetime(2026, 11, 3, 4, tzinfo=ZoneInfo("UTC")).timestamp())
    assert instant("2026-11-03T12:00:00", SHANGHAI) == instant(str(noon), SHANGHAI) == noon
    assert instant("Unknown", SHANGHAI) is None
    assert [span_seconds(text) for text in ("00:01:02", "2-00:00:01", "")] == [62, 172_801, 0]


def test_whole_numbers_are_split_by_largest_remainder_and_rounded_away_from_zero() -> None:
    assert share_out(10, [1, 1, 1]) == [4, 3, 3]
    assert share_out(5, [1, 2, 7]) == [1, 1, 3]
    assert [round_half_away(Fraction(n, 2)) for n in (1, 3, -1, -3, 2)] == [1, 2, -1, -2, 1]
    assert minor(Fraction("0.005")) == 1


def prices(tmp_path: Path, *, purchases: str = "") -> PriceList:
    (tmp_path / "facts.toml").write_text(FACTS + purchases, encoding="utf-8")
    return PriceList(read_facts(tmp_path))


def used(day: int, core_hours: int, **more: str) -> Use:
    midnight = int(datetime(2026, 11, day, tzinfo=SHANGHAI).timestamp())
    kind = {"account": "physics", "user": "ann", "resource": "measure:core_without_cards", "qos": "normal"} | more
    # This cluster counts two CPUs per core.
    return Use(
        midnight,
        "hpc1",
        kind.get("partition", "cpu"),
        kind["qos"],
        kind["account"],
        kind["user"],
        kind["resource"],
        core_hours * 7200,
    )


def test_a_month_is_counted_through_its_tiers_and_a_price_change_keeps_the_count(tmp_path: Path) -> None:
    uses = [used(3, 8), used(4, 5), used(5, 9), used(16, 4)]
    lines, unplaced = month_lines(uses, prices(tmp_path), "2026-11")
    assert not unplaced
    assert [(line.key.price, line.key.tier, line.quantity, line.amount) for line in lines] == [
        ("book:core-hour:2026-01-01", 1, Fraction(10), 100),
        ("book:core-hour:2026-01-01", 2, Fraction(10), 80),
        ("book:core-hour:2026-01-01", 3, Fraction(2), 10),
        ("book:core-hour:2026-11-16", 0, Fraction(4), 50),
    ]
    assert [(place.day.day, amount) for place, _, amount in lines[0].parts] == [(3, 80), (4, 20)]


def test_the_most_specific_mapping_names_the_project_and_the_cluster_counts_most(tmp_path: Path) -> None:
    lines, _ = month_lines([used(3, 1), used(3, 1, user="eve"), used(3, 1, user="bob")], prices(tmp_path), "2026-11")
    assert [(place.user, place.project) for place, _, _ in lines[0].parts] == [
        ("ann", "physics"),
        ("bob", "physics"),
        ("eve", "visitors"),
    ]


def test_a_contracts_own_price_goes_before_the_books(tmp_path: Path) -> None:
    cards = Use(used(3, 0).day_start, "hpc1", "cpu", "normal", "physics", "ann", "card:a100", 3600 * 1000 * 2)
    lines, _ = month_lines([cards], prices(tmp_path), "2026-11")
    assert [(line.key.price, line.quantity, line.amount) for line in lines] == [
        ("contract:HT-1:card-hour:2026-01-01", Fraction(2), 600)
    ]


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (used(3, 1, account="nobody"), "unassigned"),
        (used(3, 1, partition="secret"), "unknown_partition"),
        (used(3, 1, resource="wall"), "unmatched"),
    ],
)
def test_usage_that_cannot_be_charged_is_named(tmp_path: Path, use: Use, reason: str) -> None:
    lines, unplaced = month_lines([use], prices(tmp_path), "2026-11")
    assert (lines, [one.reason for one in unplaced]) == ([], [reason])


def test_included_usage_and_other_months_are_neither_charged_nor_open(tmp_path: Path) -> None:
    uses = [used(3, 1, qos="free"), used(3, 1, resource="cpu")]
    assert month_lines(uses, prices(tmp_path), "2026-11") == ([], [])
    assert month_lines([used(3, 1)], prices(tmp_path), "2026-12") == ([], [])


def test_a_pack_is_drawn_before_the_tiers_count_and_its_last_hour_takes_the_last_cent(tmp_path: Path) -> None:
    lines, _ = month_lines(
        [used(1, 1), used(2, 1), used(3, 1), used(4, 2)], prices(tmp_path, purchases=PURCHASES), "2026-11"
    )
    by_price = {line.key.price: line for line in lines if line.key.sku == "core-hour"}
    pack = by_price["pack:pack-1"]
    assert (pack.quantity, pack.amount) == (Fraction(3), 100)
    assert [amount for _, _, amount in pack.parts] == [33, 34, 33]  # through each day 33.33, 66.67 and 100
    assert by_price["book:core-hour:2026-01-01"].quantity == 2


def test_leases_cost_by_the_day_and_tickets_the_price_of_their_day(tmp_path: Path) -> None:
    lines, _ = month_lines([], prices(tmp_path, purchases=PURCHASES), "2026-11")
    lease, ticket = lines
    assert lease.amount == 6667  # 2 × 100.00 × 10 of 30 days
    assert [amount for _, _, amount in lease.parts] == [667, 666, 667, 667, 666, 667, 667, 666, 667, 667]
    assert (ticket.amount, ticket.key.price) == (480_000, "one-off:ticket-1")


def charge(day: int, amount: int, *, project: str = "physics", price: str = "book", rate: str = "0.06") -> Charge:
    line = f"u-north|HT-1|core-hour|{price}|0|2026-11"
    return Charge(date(2026, 11, day), "core-hour", project, "ann", "hpc1", line, "HT-1", amount, Fraction(rate))


def pot(kind: str, name: str, gross: int, *, day: int = 1, project: str = "") -> Pot:
    return Pot(kind, name, "HT-1" if kind == "credit" else "", project, date(2026, 11, day), LAST_DAY, gross, gross)


def test_charges_fall_on_packs_grants_money_credit_and_arrears_in_that_order() -> None:
    wallet = Wallet([pot("grant", "trial", 10)], [pot("lot", "any", 20), pot("lot", "own", 5, project="physics")])
    wallet.credit["HT-1"] = pot("credit", "HT-1", 30)
    draw_month(wallet, [charge(2, 100), charge(2, 7, price="pack:p")], days_of("2026-11"))
    assert [(drawn.kind, drawn.source, drawn.amount) for drawn in wallet.drawn] == [
        ("grant", "trial", 10),
        ("lot", "own", 5),
        ("lot", "any", 20),
        ("credit", "HT-1", 30),
        ("arrears", "HT-1", 35),
        ("pack", "p", 7),
    ]


def test_a_receipt_settles_arrears_before_the_days_charges() -> None:
    wallet = Wallet(lots=[pot("lot", "late", 106, day=5)])
    draw_month(wallet, [charge(2, 53), charge(5, 100)], days_of("2026-11"))
    assert [(drawn.kind, drawn.amount) for drawn in wallet.drawn] == [("arrears", 53), ("lot", 53), ("arrears", 47)]
    assert sum(wallet.arrears.values()) == 47
    # Receipt 106 holds 6: all of it released. Arrears 100 hold 6 of which 53 % is payable.
    assert dict(keep_books(wallet, {}, Fraction("0.06")).moved) == {
        "income:usage": -(50 + 94),
        "liabilities:contract": 100,
        "liabilities:vat_pending": 6 - 6 + 3,
        "liabilities:vat_payable": -(3 + 3),
        "assets:receivable:arrears": 100 - 53,
    }


def test_usage_at_another_rate_pays_its_own_tax() -> None:
    wallet = Wallet(lots=[pot("lot", "money", 1060)])
    draw_month(wallet, [charge(2, 113, rate="0.13"), charge(3, 530)], days_of("2026-11"))
    books = keep_books(wallet, {}, Fraction("0.06"))
    assert books.moved["liabilities:vat_payable"] == -(13 + 30)
    assert books.moved["liabilities:vat_pending"] == 36  # 643 of 1,060 drawn: round(36.40)
    assert sum(books.moved.values()) == 0


def test_a_line_of_a_month_is_found_on_the_document_that_it_was_drawn_on(tmp_path: Path) -> None:
    facts = tmp_path / "facts"
    facts.mkdir()
    (facts / "all.toml").write_text(FACTS + PURCHASES, encoding="utf-8")
    # 20 hours of two threads are 20 core-hours: 3 from the pack, 10 at 0.10, 7 at 0.08; no money but 1.00.
    file = log(tmp_path, row("7", "2026-11-03T00:00:00", "2026-11-03T20:00:00"))
    receipts = tmp_path / "receipts.csv"
    receipts.write_text(
        "customer,contract,project,amount,received_on,reference\nu-north,HT-1,,1.00,2026-11-01,bank 1\n",
        encoding="utf-8",
    )
    month = expected_month([Log("hpc1", [file])], facts, receipts, "2026-11").customers["u-north"]
    usage_key = LineKey("u-north", "HT-1", "core-hour", "book:core-hour:2026-01-01", 1, "2026-11")
    assert isinstance(month.lines[usage_key], Line)
    assert month.drawn[usage_key, "lot", "lot:u-north:bank 1"] == 100
    assert month.statement_total == 100 + 100 + 56 + 6667 + 480_000
    assert (month.wallet_balance, month.invoice_total) == (0, 0)
    assert month.arrears == 56 + 6667 + 480_000
    assert sum(month.movements.values()) == 0


@pytest.mark.shared
def test_the_real_logs_clean_file_holds_the_seconds_that_were_measured(shared_data: Path) -> None:
    clean = shared_data / "slurm" / "dumps" / "D9_final_all" / "sacct-epoch-name-last.psv"
    uses = usage(attempts({"name": "hpc1", "timezone": "Asia/Shanghai"}, [clean]), [SHANGHAI], [])
    assert sum(use.seconds for use in uses if use.resource == "cpu") == 22_054
    # 3,198 card-seconds while running; a suspended job held its two cards for 12 s more.
    assert sum(use.seconds for use in uses if use.resource.startswith("card:")) == (3_198 + 24) * 1000
