"""What capacity cost is accrued once, by difference, net of the VAT in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hourbook.applying import apply_files
from hourbook.closes import closes_by_month
from hourbook.database import create_home, read_session, run_write
from hourbook.demo import CLOCK, SAMPLE
from hourbook.reading import Reading
from hourbook.refreshing import current_pins, refresh
from hourbook.settings import Home
from hourbook.supplier_costs import accrue_supplier_costs
from ledger import store as ledger


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = create_home(tmp_path / "home", CLOCK)
    apply_files(home, [SAMPLE / "facts"])
    refresh(home)
    return home


def accrue(home: Home) -> int:
    return run_write(
        home.engine,
        lambda session: accrue_supplier_costs(
            Reading(home, session, current_pins(session), closes_by_month(session)), "2026-11"
        ),
    )


def costs(home: Home) -> dict[str, int]:
    with read_session(home.engine) as session:
        moved = ledger.movements(session, kinds=("supplier_accrual",), periods=("2026-11",))
    return {f"{key.code} {key.detail}": amount for key, amount in moved.items()}


def test_a_fixed_monthly_amount_is_accrued_without_its_vat_even_before_any_usage(home: Home) -> None:
    assert accrue(home) == 1
    assert costs(home) == {
        "expenses:cost hpc1": 1_132_075,  # 12,000.00 less 6% inside it
        "liabilities:supplier_accrual CG-2026-03": -1_132_075,
    }


def test_accruing_again_posts_nothing(home: Home) -> None:
    accrue(home)
    assert accrue(home) == 0


def test_a_corrected_contract_posts_the_difference_only(home: Home, tmp_path: Path) -> None:
    accrue(home)
    text = (SAMPLE / "facts" / "suppliers.toml").read_text(encoding="utf-8")
    assert '"12000.00"' in text
    changed = tmp_path / "suppliers.toml"
    changed.write_text(text.replace('"12000.00"', '"13000.00"'), encoding="utf-8")
    apply_files(home, [changed])
    refresh(home)
    assert accrue(home) == 1
    assert costs(home)["expenses:cost hpc1"] == 1_226_415
