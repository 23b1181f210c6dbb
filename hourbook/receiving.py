"""Money and promises that come in: top-ups, packs and grants, each posted once with the source that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction

from sqlmodel import Session

from base.money import format_minor, included_tax
from hourbook import facts
from hourbook.crash import crash_point
from hourbook.database import run_write
from hourbook.settings import Home
from invoices.tax import rate_text
from ledger.accounts import AccountKey, grant_asset, pack_asset
from ledger.funding import FundingSource
from ledger.journal import Transaction, transaction_from_movements
from ledger.store import funding_sources, post_with_sources
from pricing.catalog import Catalog
from pricing.models import Grant, Pack


class ReceiptConflictError(ValueError):
    """A reference is known already, with another amount."""

    def __init__(self, customer: str, reference: str, known: str, given: str) -> None:
        super().__init__(
            f"receipt {reference!r} of {customer} is already there with {known}, not {given}; "
            "a receipt is never changed: use the reference of the new payment, or reverse the first"
        )


class UnknownCustomerError(LookupError):
    """Nobody of that name is on record."""

    def __init__(self, customer: str) -> None:
        super().__init__(f"customer {customer!r} is unknown; `hourbook apply` records customers from TOML")
        self.customer = customer


@dataclass(frozen=True)
class TopUp:
    """Money a customer paid in advance."""

    customer: str
    amount_minor: int
    reference: str
    received_on: date
    contract: str = ""
    project: str = ""
    last_day: date | None = None
    account: str = "assets:bank"  # where it arrived


def top_up(session: Session, catalog: Catalog, receipt: TopUp, now: datetime) -> bool:
    """Post a receipt as a funding lot; return False where the same receipt was there already."""
    if receipt.customer not in catalog.customers:
        raise UnknownCustomerError(receipt.customer)
    if receipt.amount_minor <= 0:
        raise ValueError(f"a top-up must be more than nothing, not {receipt.amount_minor}")
    _check_scope(catalog, receipt)
    for known in funding_sources(session, customer=receipt.customer):
        if known.kind == "lot" and known.reference == receipt.reference:
            if known.gross_minor != receipt.amount_minor:
                shown = [format_minor(minor, catalog.currency) for minor in (known.gross_minor, receipt.amount_minor)]
                raise ReceiptConflictError(receipt.customer, receipt.reference, *shown)
            return False
    rate = catalog.operator.tax_rate if catalog.operator else Decimal(0)
    source = FundingSource(
        id=f"lot:{receipt.customer}:{receipt.reference}",
        kind="lot",
        customer=receipt.customer,
        contract=receipt.contract,
        reference=receipt.reference,
        received_on=receipt.received_on,
        last_day=receipt.last_day,
        project=receipt.project,
        gross_minor=receipt.amount_minor,
        currency=catalog.currency,
        tax_rate=rate,
    )
    post_with_sources(session, _money_in(source, receipt.account, "receipt", receipt.received_on), [source], now)
    return True


def _check_scope(catalog: Catalog, receipt: TopUp) -> None:
    """Refuse money bound to a contract or project under which the customer could never use it."""
    contract = catalog.contracts.get(receipt.contract)
    if receipt.contract and (contract is None or contract.customer != receipt.customer):
        raise LookupError(f"{receipt.customer} has no contract {receipt.contract!r}; leave it out or apply it first")
    projects = {project.id for project in catalog.customers[receipt.customer].projects}
    if receipt.project and receipt.project not in projects:
        raise LookupError(f"{receipt.customer} has no project {receipt.project!r}; leave it out or apply it first")


def receive(home: Home, receipt: TopUp) -> bool:
    """Post a receipt in a transaction of its own; return False where it was there already."""

    def work(session: Session) -> bool:
        new = top_up(session, Catalog.from_facts(facts.as_of(session)), receipt, home.now())
        crash_point("receipt:before_commit")
        return new

    new = run_write(home.engine, work)
    crash_point("receipt:after_commit")
    return new


def post_purchases(session: Session, catalog: Catalog, now: datetime) -> int:
    """Post every pack and grant of the catalog that is not in the books yet; return how many.

    One that is there with other facts is refused by the ledger: what was sold or given is never changed.
    """
    known = {source.id: source for source in funding_sources(session)}
    posted = 0
    for source, bought_on in _purchases(catalog):
        there = known.get(source.id)
        # VAT was fixed when the money came in.
        if there is None or replace(source, tax_rate=there.tax_rate) != there:
            post_with_sources(session, _purchase(source, bought_on), [source], now)
            posted += 1
    return posted


def _purchases(catalog: Catalog) -> list[tuple[FundingSource, date]]:
    packs = [(_pack_source(pack, catalog), pack.bought_on) for _, pack in sorted(catalog.packs.items())]
    grants = [(_grant_source(grant, catalog), grant.granted_on) for _, grant in sorted(catalog.grants.items())]
    return packs + grants


def _pack_source(pack: Pack, catalog: Catalog) -> FundingSource:
    return FundingSource(
        id=pack.id,
        kind="pack",
        customer=pack.customer,
        contract=pack.contract,
        reference=pack.id,  # one transfer may pay for several packs
        received_on=pack.valid_from,
        last_day=pack.last_day,
        sku=pack.sku,
        gross_minor=catalog.minor(pack.price),
        currency=catalog.currency,
        tax_rate=Decimal(rate_text(catalog.tax_rate(pack.sku))),
        quantity=int(pack.quantity) * catalog.scale(pack.sku),
        note=pack.reference,
    )


def _grant_source(grant: Grant, catalog: Catalog) -> FundingSource:
    return FundingSource(
        id=grant.id,
        kind="grant",
        customer=grant.customer,
        contract=grant.contract,
        reference=grant.id,
        received_on=grant.granted_on,
        last_day=grant.last_day,
        gross_minor=catalog.minor(grant.face_value),
        currency=catalog.currency,
        note=grant.reason,
    )


def _purchase(source: FundingSource, bought_on: date) -> Transaction:
    if source.kind == "grant":
        asset = grant_asset(source.currency)
        moved = {
            AccountKey("equity:grant_issued", source.customer, asset, source.id): source.gross_minor,
            AccountKey("liabilities:grant", source.customer, asset, source.id): -source.gross_minor,
        }
        return transaction_from_movements(
            "grant", f"grant:{source.id}", moved, effective_on=bought_on, narration=f"Grant: {source.note}"
        )
    return _money_in(source, "assets:bank", "pack", bought_on)


def _money_in(source: FundingSource, account: str, kind: str, effective_on: date) -> Transaction:
    """Return the posting of paid money: bank against contract liability and pending VAT, and a pack's quantity."""
    tax = included_tax(source.gross_minor, Fraction(source.tax_rate))
    money = source.currency
    moved = {
        AccountKey(account, asset=money): source.gross_minor,
        AccountKey("liabilities:contract", source.customer, money, source.id): tax - source.gross_minor,
        AccountKey("liabilities:vat_pending", source.customer, money, source.id): -tax,
    }
    if source.quantity:
        asset = pack_asset(source.sku)
        moved[AccountKey("equity:pack_issued", source.customer, asset, source.id)] = source.quantity
        moved[AccountKey("liabilities:pack", source.customer, asset, source.id)] = -source.quantity
    return transaction_from_movements(
        kind,
        f"{kind}:{source.customer}:{source.reference}",
        moved,
        effective_on=effective_on,
        narration=f"{'Pack sold' if kind == 'pack' else 'Top-up'}, {source.note or source.reference}",
    )
