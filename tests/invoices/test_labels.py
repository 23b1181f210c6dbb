"""Where a price comes from, said for a reader in the document's language."""

from __future__ import annotations

import pytest

from invoices.labels import price_source


@pytest.mark.parametrize(
    ("price_id", "reference", "chinese", "english"),
    [
        ("book:core-hour:2026-11-01", "Notice 7", "价目表 2026-11-01 · Notice 7", "Price book 2026-11-01 · Notice 7"),
        ("contract:HT-1:core-hour:2026-01-01", "", "合同价 HT-1 2026-01-01", "Contract price HT-1 2026-01-01"),
        ("pack:pack-7", "bank 1", "资源包 pack-7 · bank 1", "Pack pack-7 · bank 1"),
        ("lease:lease-1", "", "租约 lease-1", "Lease lease-1"),
        ("one-off:ticket-1", "", "单次费用 ticket-1", "One-off charge ticket-1"),
    ],
)
def test_the_source_of_a_price_is_named(price_id: str, reference: str, chinese: str, english: str) -> None:
    assert price_source(price_id, reference, "zh") == chinese
    assert price_source(price_id, reference, "en") == english
