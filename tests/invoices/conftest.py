"""Documents of a made-up operator, as small or large as a test needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from invoices.document import (
    DayUsage,
    DocumentContent,
    DocumentLine,
    LotRow,
    PackRow,
    Party,
    Receipt,
    ShareRow,
    TaxGroup,
    Wallet,
)
from invoices.tax import rate_text, tax_groups

ISSUER = Party(
    id="starlight",
    name="星河超算云（北京）科技有限公司",
    name_en="Starlight Supercomputing Cloud Co., Ltd.",
    address="北京市海淀区中关村东路 1 号院 8 号楼 12 层",
    address_en="12/F, Building 8, 1 Zhongguancun East Road, Haidian, Beijing",
    tax_id="91110108MA00000000",
    phone="010-6000 0000",
    email="billing@example.com",
    bank="中国银行北京中关村支行",
    bank_account="3456 0000 1234 5678",
)
UNIVERSITY = Party(
    id="u-north-physics",
    name="北方大学物理学院",
    name_en="School of Physics, Northern University",
    address="北京市海淀区学院路 30 号",
    tax_id="12100000400000000X",
    email="finance@physics.example.edu",
)
COMPANY = Party(
    id="c-deepriver",
    name="深河智能科技（上海）有限公司",
    name_en="Deep River Intelligence (Shanghai) Ltd.",
    address="上海市浦东新区张江路 200 号",
    address_en="200 Zhangjiang Road, Pudong, Shanghai",
    tax_id="91310115MA00000001",
)
_SKUS = (
    ("core-hour", "CPU 核时", "CPU core-hours", "core-hour", "0.08"),
    ("card-hour-a100", "A100 卡时", "A100 card-hours", "card-hour", "9.80"),
    ("card-hour-k100", "K100 国产加速卡卡时", "K100 accelerator card-hours", "card-hour", "4.25"),
    ("lease-a100-card", "A100 整卡月租", "A100 card, monthly lease", "card-month", "4800.00"),
)


def make_line(n: int, amount_minor: int | None = None, **changes: Any) -> DocumentLine:  # noqa: ANN401
    """Line number n; its SKU, tier and size vary with n."""
    sku, name, name_en, unit, price = _SKUS[n % len(_SKUS)]
    amount = 1234 * n * n + 57 * n + 1 if amount_minor is None else amount_minor
    line = DocumentLine(
        n=n,
        line_id=f"u-north-physics|HT-2026-0001|{sku}|book:{sku}:2026-11-01|{n}|2026-11",
        sku=sku,
        sku_name=name,
        sku_name_en=name_en,
        product="general-hpc",
        category="Usage",
        original_month="2026-11",
        price_source="价目表 2026-11-01 · Price notice 2025-11-28",
        tier=n % 3,
        quantity=f"{n * 1234}.5" if unit.endswith("hour") else str(n),
        unit=unit,
        unit_price=price,
        list_unit_price=price if n % 5 else "0.1",
        line_amount_minor=amount,
        parts={"credit": amount},
        amount_minor=amount,
        tax_rate="0.06",
        tax_minor=0,
    )
    return replace(line, **changes)


def with_totals(content: DocumentContent) -> DocumentContent:
    """The content with tax and totals computed from its lines."""
    split = tax_groups([(line.amount_minor, Fraction(line.tax_rate)) for line in content.lines])
    lines = tuple(replace(line, tax_minor=tax) for line, tax in zip(content.lines, split.line_tax_minor, strict=True))
    total = sum(line.amount_minor for line in lines)
    return replace(
        content,
        lines=lines,
        tax=tuple(TaxGroup(rate_text(g.rate), g.gross_minor, g.tax_minor, g.net_minor) for g in split.groups),
        total_minor=total,
        tax_minor=split.tax_minor,
        net_minor=total - split.tax_minor,
    )


def usage(cards: bool = True) -> tuple[DayUsage, ...]:
    """Thirty days with a quiet weekend each week."""
    return tuple(
        DayUsage(
            date(2026, 11, d),
            f"{(d * 7919) % 13000 // (5 if d % 7 in {0, 1} else 1)}.25",
            f"{(d * 31) % 220}" if cards else "0",
            d * 100,
        )
        for d in range(1, 31)
    )


def make_invoice(count: int = 4, **changes: Any) -> DocumentContent:  # noqa: ANN401
    """An invoice of a company with a credit line."""
    content = DocumentContent(
        kind="invoice",
        number="INV-2026-000012",
        series="INV-2026",
        issuer=ISSUER,
        customer=COMPANY,
        contracts=("HT-2026-0017",),
        language="zh",
        currency="CNY",
        month="2026-11",
        timezone="Asia/Shanghai",
        first_day=date(2026, 11, 1),
        last_day=date(2026, 11, 30),
        issued_on=date(2026, 12, 1),
        due_on=date(2026, 12, 31),
        lines=tuple(make_line(n) for n in range(1, count + 1)),
        usage_by_day=usage(),
        by_project=(
            ShareRow("llm", "大模型训练", {"core-hour": "1234.5", "card-hour": "880"}, 800000),
            ShareRow("risk", "风险模型", {"core-hour": "99.25"}, 61200),
        ),
        by_user=(
            ShareRow("li.na", "", {"core-hour": "1000.5", "card-hour": "880"}, 790000),
            ShareRow("wang_lei", "", {"core-hour": "333.25"}, 71200),
        ),
        tax=(),
        total_minor=0,
        tax_minor=0,
        net_minor=0,
        pins={
            "recorded_seq": 104233,
            "plan": 3,
            "config_seq": 12,
            "ledger_seq": 881,
            "rules": "2026-12",
            "template": "1",
        },
        ledger_head=(881, "9f2c4be1d7a0c35e9f2c4be1d7a0c35e9f2c4be1d7a0c35e9f2c4be1d7a0c35e"),
    )
    return with_totals(replace(content, **changes))


def make_statement(count: int = 3, **changes: Any) -> DocumentContent:  # noqa: ANN401
    """A statement of a university that pays in advance."""
    wallet = Wallet(
        opening_minor=5_000_000,
        receipts=(
            Receipt(date(2026, 11, 3), "bank 20261103-0007", 2_000_000),
            Receipt(date(2026, 11, 20), "bank 20261120-0031 基金项目 12074001", 1_000_000),
        ),
        drawn_minor=1_234_567,
        settled_arrears_minor=12_345,
        closing_minor=6_753_088,
        lots=(
            LotRow("到款 2026-01-05 基金 12074001", 5_000_000, 0, 1_200_000, 3_800_000, date(2027, 6, 30), "condmat"),
            LotRow("bank 20261103-0007", 0, 2_000_000, 46_912, 1_953_088),
        ),
        packs=(
            PackRow(
                "pack-2026-007", "core-hour", "core-hour", "0", "100000", "23456.789", "76543.211", date(2027, 11, 2)
            ),
        ),
        grants=(LotRow("trial-2026-003", 0, 50_000, 12_000, 38_000, date(2026, 12, 31)),),
        arrears_opening_minor=12_345,
        arrears_new_minor=0,
        arrears_settled_minor=12_345,
        arrears_closing_minor=0,
    )
    content = make_invoice(
        count,
        kind="statement",
        number="ST-2026-000031",
        series="ST-2026",
        customer=UNIVERSITY,
        due_on=None,
        wallet=wallet,
        usage_by_day=usage(cards=False),
    )
    return with_totals(replace(content, **changes))


@pytest.fixture
def invoice() -> Callable[..., DocumentContent]:
    return make_invoice


@pytest.fixture
def statement() -> Callable[..., DocumentContent]:
    return make_statement


@pytest.fixture
def line() -> Callable[..., DocumentLine]:
    return make_line
