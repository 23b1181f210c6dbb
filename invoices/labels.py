"""The fixed words on documents, in Chinese and English."""

from __future__ import annotations

from dataclasses import dataclass

from invoices.document import Kind, Language

_WORDS: dict[str, tuple[str, str]] = {
    "invoice": ("账单", "Invoice"),
    "statement": ("对账单", "Statement"),
    "credit_note": ("贷项通知单", "Credit note"),
    "draft": ("草稿", "Draft"),
    "to": ("客户", "Customer"),
    "document": ("单据", "Document"),
    "name": ("名称", "Name"),
    "customer_id": ("编号", "ID"),
    "address": ("地址", "Address"),
    "tax_id": ("税号", "Tax ID"),
    "phone": ("电话", "Phone"),
    "email": ("邮箱", "Email"),
    "number": ("单号", "Number"),
    "period": ("账期", "Period"),
    "zone": ("时区", "Time zone"),
    "issued_on": ("出具日期", "Issued on"),
    "due_on": ("付款期限", "Due on"),
    "contracts": ("合同", "Contracts"),
    "currency": ("币种", "Currency"),
    "amount_due": ("本期应付", "Amount due"),
    "credited": ("抵减金额", "Amount credited"),
    "opening": ("期初余额", "Opening balance"),
    "receipts": ("本期充值", "Receipts"),
    "drawn": ("本期支用", "Drawn"),
    "usage_total": ("本期费用", "Charges"),
    "closing": ("期末余额", "Closing balance"),
    "arrears": ("欠费", "Arrears"),
    "arrears_owed": ("尚欠", "Owed"),
    "core_hours": ("核时", "Core-hours"),
    "card_hours": ("卡时", "Card-hours"),
    "core_hours_by_day": ("每日核时", "Core-hours by day"),
    "card_hours_by_day": ("每日卡时", "Card-hours by day"),
    "sum": ("合计", "Total"),
    "lines": ("费用明细", "Charges"),
    "n": ("序号", "No."),
    "item": ("项目", "Item"),
    "quantity": ("数量", "Quantity"),
    "unit_price": ("单价", "Unit price"),
    "list_price": ("目录价", "list"),
    "line_amount": ("整行金额", "Whole line"),
    "amount": ("金额", "Amount"),
    "tax": ("税额", "Tax"),
    "net": ("不含税金额", "Net"),
    "tax_of": ("其中税额", "Tax included"),
    "total": ("价税合计", "Total"),
    "capitals": ("金额大写", "Amount in capitals"),
    "tier": ("第 {n} 档", "tier {n}"),
    "adjustment": ("{month} 账期调整", "adjustment of {month}"),
    "price_book": ("价目表", "Price book"),
    "contract_price": ("合同价", "Contract price"),
    "lease": ("租约", "Lease"),
    "one_off": ("单次费用", "One-off charge"),
    "no_lines": ("本期没有费用。", "There are no charges for this period."),
    "no_usage": ("本期没有用量。", "There was no usage in this period."),
    "pack": ("资源包", "pack"),
    "grant": ("赠送", "grant"),
    "lot": ("预付款", "prepaid"),
    "credit": ("信用额度", "credit line"),
    "by_project": ("按项目", "By project"),
    "project": ("项目", "Project"),
    "by_user": ("按用户", "By user"),
    "user": ("用户", "User"),
    "unassigned": ("未归项目", "No project"),
    "no_user": ("无用户", "No user"),
    "wallet": ("钱包", "Wallet"),
    "date": ("日期", "Date"),
    "narration": ("摘要", "Description"),
    "money_in": ("收入", "In"),
    "money_out": ("支出", "Out"),
    "balance": ("余额", "Balance"),
    "receipt": ("充值", "Receipt"),
    "settled_arrears": ("结清欠费", "Arrears settled"),
    "lots": ("经费", "Funding lots"),
    "lot_id": ("到款", "Lot"),
    "grants": ("赠送额度", "Grants"),
    "grant_id": ("赠送", "Grant"),
    "packs": ("资源包", "Packs"),
    "pack_id": ("资源包", "Pack"),
    "start_balance": ("期初", "Opening"),
    "end_balance": ("期末", "Closing"),
    "added": ("增加", "Added"),
    "bought": ("购入", "Bought"),
    "used": ("支用", "Drawn"),
    "last_day": ("有效期至", "Last day"),
    "any_project": ("不限", "any"),
    "arrears_new": ("新增", "New"),
    "arrears_settled": ("结清", "Settled"),
    "payment": ("付款信息", "Payment"),
    "bank": ("开户行", "Bank"),
    "bank_account": ("账号", "Account"),
    "reference": ("附言", "Reference"),
    "not_fapiao": ("本单据不是增值税发票。", "This document is not a VAT fapiao."),
    "prices_gross": ("价格和金额均含税。", "Prices and amounts include tax."),
    "basis": ("依据", "Basis"),
    "ledger": ("账本", "Ledger"),
    "missing": ("〓 代表字库中没有的字符：{codes}", "〓 stands for characters that the font lacks: {codes}"),
}

_UNITS = {
    "core-hour": ("核时", "core-hours"),
    "card-hour": ("卡时", "card-hours"),
    "node-hour": ("节点时", "node-hours"),
    "wall-hour": ("机时", "wall-hours"),
    "piece": ("件", "pieces"),
    "card-month": ("卡·月", "card-months"),
    "node-month": ("节点·月", "node-months"),
}

# By the first part of a price id.
_PRICE_OWNERS = {
    "book": "price_book",
    "contract": "contract_price",
    "pack": "pack_id",
    "lease": "lease",
    "one-off": "one_off",
}


@dataclass(frozen=True)
class Words:
    """The words of one language: on Chinese documents each label also has an English sublabel."""

    language: Language

    def main(self, key: str) -> str:
        """Return the word in the document's language."""
        return _WORDS[key][0 if self.language == "zh" else 1]

    def sub(self, key: str) -> str:
        """Return the English word that stands under a Chinese one; nothing on English documents."""
        return _WORDS[key][1] if self.language == "zh" else ""

    def both(self, key: str) -> str:
        """Return the word with its English sublabel on one line."""
        return f"{self.main(key)} {self.sub(key)}".rstrip()

    def unit(self, unit: str) -> str:
        """Return how a unit is written after a quantity; one that is not known stands as it is."""
        return _UNITS.get(unit, (unit, unit))[0 if self.language == "zh" else 1]

    def unit_sub(self, unit: str) -> str:
        """Return the English unit that stands under a Chinese one; nothing on English documents."""
        return _UNITS.get(unit, ("", ""))[1] if self.language == "zh" else ""

    def pick(self, chinese: str, english: str) -> str:
        """Return the name in the document's language, or the other where there is none."""
        return (chinese or english) if self.language == "zh" else (english or chinese)

    def title(self, kind: Kind) -> str:
        """Return the document's title."""
        return self.main(kind)


def price_source(sku_price_id: str, reference: str, language: Language) -> str:
    """Say for a reader where a price comes from, and the decision behind it: `Price book 2026-11-01 · Notice 7`."""
    owner, *rest = sku_price_id.split(":")
    # The SKU is what the line is about, so it is not said again.
    named = {"book": rest[-1:], "contract": [*rest[:1], *rest[-1:]]}.get(owner, rest)
    word = Words(language).main(_PRICE_OWNERS[owner]) if owner in _PRICE_OWNERS else owner
    return " · ".join(filter(None, (" ".join((word, *named)), reference)))
