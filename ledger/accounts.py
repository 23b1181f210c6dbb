"""Accounts: the places where money, packs and grants sit, and what each of them may do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from base.money import MINOR_DIGITS

Side = Literal["debit", "credit"]

# What may be counted: a currency in minor units, a pack of a SKU in UNIT_SCALE parts, face value in minor units.
_QUANTITY_ASSET = re.compile(r"^pack:\S+$")
_GRANT_ASSET = re.compile(r"^grant:([A-Z]{3})$")


class UnknownAccountError(ValueError):
    """A posting names an account code or an asset that the chart of accounts does not have."""


@dataclass(frozen=True)
class AccountKind:
    """What an account code means: its normal side, and whether its balance may fall below nothing."""

    normal_side: Side
    meaning: str
    has_floor: bool = False  # True: a charge that would take the balance below 0 is refused


CHART: dict[str, AccountKind] = {
    "assets:bank": AccountKind("debit", "money in the bank"),
    "assets:clearing:stripe": AccountKind("debit", "paid through the provider, not yet paid out"),
    "assets:receivable:unbilled": AccountKind("debit", "used on credit, not on an invoice yet; detail is the contract"),
    "assets:receivable:billed": AccountKind("debit", "invoiced, not paid yet; detail is the contract"),
    "assets:receivable:arrears": AccountKind("debit", "usage that nothing covered; detail is the contract"),
    "assets:loss_allowance": AccountKind("credit", "expected loss on receivables"),
    "assets:accumulated_depreciation": AccountKind("credit", "own servers, worn down so far"),
    "assets:input_vat": AccountKind("debit", "VAT on suppliers' special fapiao"),
    "assets:supplier_prepayment": AccountKind("debit", "packs bought from suppliers, not used yet"),
    "liabilities:contract": AccountKind("credit", "prepaid, net of VAT; detail is the lot", has_floor=True),
    "liabilities:vat_pending": AccountKind("credit", "VAT whose tax point has not come; detail is the lot or contract"),
    "liabilities:vat_payable": AccountKind("credit", "VAT owed to the tax bureau"),
    "liabilities:due_to_customers": AccountKind("credit", "owed back to customers"),
    "liabilities:unidentified_receipts": AccountKind("credit", "money that arrived and nobody claimed yet"),
    "liabilities:supplier_payable": AccountKind("credit", "supplier bills, not paid yet"),
    "liabilities:supplier_accrual": AccountKind("credit", "supplier cost without a bill yet"),
    "liabilities:vendor_payable": AccountKind("credit", "software vendors' share"),
    "liabilities:pack": AccountKind("credit", "quantity of a pack left; detail is the pack", has_floor=True),
    "liabilities:grant": AccountKind("credit", "face value of a grant left; detail is the grant", has_floor=True),
    "equity:pack_issued": AccountKind("debit", "quantity of all packs ever sold"),
    "equity:pack_used": AccountKind("credit", "quantity drawn from packs"),
    "equity:grant_issued": AccountKind("debit", "face value of all grants ever given"),
    "equity:grant_used": AccountKind("credit", "face value drawn from grants"),
    "income:usage": AccountKind("credit", "revenue net of VAT; detail is sku|cluster"),
    "income:commission": AccountKind("credit", "our share where we are agent"),
    "income:breakage": AccountKind("credit", "prepaid money that expired by contract"),
    "expenses:cost": AccountKind("debit", "cost of capacity; detail is the cluster"),
    "expenses:payment_fees": AccountKind("debit", "the payment provider's fees"),
    "expenses:impairment": AccountKind("debit", "loss on receivables"),
    "expenses:depreciation": AccountKind("debit", "wear of own servers"),
}


@dataclass(frozen=True, order=True)
class AccountKey:
    """One place where money sits: what it is, whose, in which asset, and of which lot, contract or SKU."""

    code: str
    customer: str = ""  # "" where it is the operator's own
    asset: str = "CNY"  # a currency, "pack:<sku>" or "grant:<currency>"
    detail: str = ""

    def __post_init__(self) -> None:
        if self.code not in CHART:
            raise UnknownAccountError(f"account code {self.code!r} is not in the chart of accounts")
        if not is_asset(self.asset):
            raise UnknownAccountError(f"{self.asset!r} is no asset; use a currency, pack:<sku> or grant:<currency>")

    @property
    def kind(self) -> AccountKind:
        """What the chart of accounts says of it."""
        return CHART[self.code]

    def __str__(self) -> str:
        parts = (self.code, self.customer, self.detail, self.asset)
        return " ".join(part for part in parts if part)


def is_asset(asset: str) -> bool:
    """Tell whether this is something the ledger counts."""
    grant = _GRANT_ASSET.fullmatch(asset)
    return asset in MINOR_DIGITS or bool(_QUANTITY_ASSET.fullmatch(asset)) or bool(grant and grant[1] in MINOR_DIGITS)


def pack_asset(sku: str) -> str:
    """Name the asset that a pack of a SKU is counted in."""
    return f"pack:{sku}"


def grant_asset(currency: str) -> str:
    """Name the asset that face value given is counted in."""
    return f"grant:{currency}"


def normal_balance(account: AccountKey, debit_positive: int) -> int:
    """Turn a debit-positive sum into the balance as its normal side sees it: what a lot still holds is positive."""
    return debit_positive if account.kind.normal_side == "debit" else -debit_positive
