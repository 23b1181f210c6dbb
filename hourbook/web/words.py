"""The words of the pages in Chinese and English, and how figures are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from typing import Literal

from base.money import decimal_text, format_grouped

Language = Literal["zh", "en"]
LANGUAGES: Mapping[Language, str] = {"zh": "中文", "en": "English"}

SYMBOLS = {"CNY": "¥", "USD": "$", "EUR": "€", "HKD": "HK$", "GBP": "£", "SGD": "S$", "JPY": "¥"}
_HOUR_DIGITS = 2

WORDS: dict[str, tuple[str, str]] = {
    "skip": ("跳到正文", "Skip to content"),
    "sign_in": ("登录", "Sign in"),
    "sign_out": ("退出", "Sign out"),
    "key": ("访问密钥", "Access key"),
    "key_hint": ("由运营方发放，形如 hb_…；请勿发给他人。", "From your operator, as hb_…; share it with nobody."),
    "login_lead": ("查看余额、用量与账单。", "Balance, usage and documents."),
    "login_wrong": ("密钥无效或已停用，请核对后重试。", "This key is unknown or revoked. Check it and try again."),
    "login_collector": ("此密钥仅用于上报用量，不能登录。", "This key only sends usage; it opens no pages."),
    "customers": ("客户", "Customers"),
    "own_page": ("我的账户", "Account"),
    "documents": ("账单与对账单", "Invoices and statements"),
    "available": ("可用额度", "Available"),
    "prepaid": ("预付余额", "Prepaid"),
    "arrears": ("欠费", "Arrears"),
    "credit": ("信用额度", "Credit line"),
    "credit_left": ("剩余信用额度", "Credit left"),
    "credit_used": ("已用", "used"),
    "of": ("共", "of"),
    "burn": ("日均消费", "Used per day"),
    "burn_hint": ("近 7 天平均", "average of the last 7 days"),
    "days_left": ("预计可用", "Lasts for"),
    "days": ("天", "days"),
    "days_none": ("近 7 天无消费", "nothing used in the last 7 days"),
    "days_hint": ("按近 7 天的用量推算", "at the rate of the last 7 days"),
    "days_over": ("余额已用完", "nothing is left"),
    "stop": ("。", ". "),
    "arrears_note": (
        "有用量尚未结清；下一笔充值将首先结清欠费。",
        "Some usage is not covered yet. The next top-up settles it first.",
    ),
    "low_note": ("按目前用量，余额即将用完。", "At the present rate the balance is nearly used up."),
    "top_up": ("充值", "Top up"),
    "amount": ("金额", "Amount"),
    "usage": ("近 30 天用量", "Usage of the last 30 days"),
    "charges": ("费用", "Charges"),
    "core_hours": ("CPU 核时", "Core-hours"),
    "card_hours": ("卡时", "Card-hours"),
    "charges_hint": ("含税，资源包抵扣前", "tax included, before packs"),
    "today": ("今天", "today"),
    "no_usage": (
        "近 30 天没有用量。作业开始运行后，这里会在几秒内更新。",
        "No usage in the last 30 days. Once jobs run, it shows here within seconds.",
    ),
    "by_project": ("按项目", "By project"),
    "project": ("项目", "Project"),
    "no_project": ("未归入项目", "Without a project"),
    "share": ("占比", "Share"),
    "funding": ("经费、资源包与赠送", "Prepaid money, packs and grants"),
    "source": ("来源", "Source"),
    "kind": ("类型", "Kind"),
    "received_on": ("生效日", "Since"),
    "last_day": ("截止日", "Until"),
    "no_end": ("长期有效", "no end"),
    "rest": ("剩余", "Left"),
    "initial": ("初始", "Of"),
    "lot": ("充值", "Receipt"),
    "pack": ("资源包", "Pack"),
    "grant": ("赠送", "Grant"),
    "no_funding": ("暂无充值、资源包或赠送。", "No receipts, packs or grants yet."),
    "number": ("编号", "Number"),
    "month": ("月份", "Month"),
    "issued_on": ("出具日", "Issued"),
    "due_on": ("付款期限", "Due"),
    "total": ("合计", "Total"),
    "status": ("状态", "Status"),
    "invoice": ("账单", "Invoice"),
    "statement": ("对账单", "Statement"),
    "credit_note": ("红字账单", "Credit note"),
    "paid": ("已付清", "paid"),
    "open": ("待付", "open"),
    "overdue": ("已逾期", "overdue"),
    "settled": ("无需付款", "nothing to pay"),
    "download": ("下载 PDF", "PDF"),
    "no_documents": ("暂无账单。每月结账后在此出具。", "No documents yet. They appear here once a month is closed."),
    "no_customers": ("尚无客户，请先用 hourbook apply 录入。", "No customers yet; record them with hourbook apply."),
    "customer": ("客户", "Customer"),
    "university": ("高校", "University"),
    "institute": ("科研院所", "Institute"),
    "company": ("企业", "Company"),
    "person": ("个人", "Person"),
    "contract": ("合同", "Contract"),
    "core-hour": ("核时", "core-hours"),
    "card-hour": ("卡时", "card-hours"),
    "node-hour": ("节点时", "node-hours"),
    "wall-hour": ("小时", "wall-hours"),
    "piece": ("件", "pieces"),
    "card-month": ("卡月", "card-months"),
    "node-month": ("节点月", "node-months"),
    "gaps": ("用量完整性", "Completeness"),
    "gaps_hint": (
        "逐小时（UTC）核对各集群声明的作业与实际收到的用量；缺口会阻止该月结账。",
        "What each cluster stated of every hour (UTC), against what arrived. A gap blocks the close of its month.",
    ),
    "gaps_found": ("本月有用量尚未到齐，暂不能结账。", "Usage of this month may be missing; it cannot be closed yet."),
    "gaps_list": ("缺口", "Gaps"),
    "gaps_do": ("请让采集器补传；确认无法补传时，可说明原因后豁免：", "Collect these hours again, or waive them:"),
    "none_expected": (
        "本月未要求任何集群声明用量，因此无法发现缺口。请在集群配置中设置 reports 并录入（hourbook apply）：",
        "No statement is expected of any cluster in this month, so a gap would not be seen. Set and apply this:",
    ),
    "not_compared": (
        "以下集群尚未录入，其声明已保存但不参与核对：",
        "These clusters are not described: what is stated of them is kept and not compared:",
    ),
    "legend": ("图例", "Legend"),
    "hour_complete": ("已到齐", "all that was stated has arrived"),
    "hour_quiet": ("无作业结束", "nothing ended, as stated"),
    "hour_waived": ("已豁免", "accepted by a person"),
    "hour_missing": ("未收到声明", "nobody stated what was seen"),
    "hour_too_few": ("少于声明", "fewer arrived than were stated"),
    "hour_differs": ("与声明不符", "others arrived than were stated"),
    "hour_not_expected": ("无需声明", "no statement is expected"),
    "hour_not_yet": ("尚未结束", "not over yet"),
    "hours": ("小时", "hour(s)"),
    "day": ("日期", "Day"),
    "no_clusters": ("尚未录入集群。", "No clusters yet; record them with hourbook apply."),
    "runaways": ("失控作业与失联作业", "Runaways and attempts that fell silent"),
    "runaways_do": (
        "失控作业按时限加宽限计量，并阻止结账：请修正调度器记账后补传，或确认后接受：",
        "Runaways count up to their time limit and a grace, and block the close. Mend the accounting, or accept them:",
    ),
    "no_runaways": ("没有失控或失联的作业。", "No attempt runs beyond its limit, and none fell silent."),
    "runaway": ("失控", "Runaway"),
    "stale": ("失联", "Silent"),
    "counted_until": ("计量截至", "Counted until"),
    "accepted": ("已接受", "Accepted"),
    "event": ("用量记录", "Event"),
    "event_hint": (
        "查询一条用量记录的全部版本，以及它计入了哪份账单。",
        "Every row recorded of one event, which counts, and where it was billed.",
    ),
    "event_source": ("来源", "Source"),
    "event_id": ("编号", "Id"),
    "follow": ("查询", "Follow"),
    "revisions": ("版本", "Revisions"),
    "revision": ("版本", "Revision"),
    "state": ("作业状态", "State"),
    "starts": ("开始", "Start"),
    "ends": ("结束", "End"),
    "still_runs": ("仍在运行", "still runs"),
    "cards": ("卡", "Cards"),
    "cluster": ("集群", "Cluster"),
    "account": ("账户", "Account"),
    "came_with": ("出处", "Came with"),
    "quarantine": ("隔离区", "In quarantine"),
    "billed_as": ("计费情况", "Billed as"),
    "document": ("账单", "Document"),
    "quantity": ("数量", "Quantity"),
    "not_issued": ("尚未出账", "not issued yet"),
    "not_billed": ("未产生费用。", "Nothing is charged."),
    "row_kept": ("计入", "counts"),
    "row_duplicate": ("重复", "duplicate"),
    "row_superseded": ("被新版本取代", "superseded"),
    "row_held_by_word": ("被运营方更正覆盖", "held by a word of the operator"),
    "row_conflict": ("冲突", "conflict"),
    "row_conflicting_final": ("冲突（按规则取舍）", "conflicting"),
    "row_reverted": ("已撤销", "taken back"),
    "row_struck": ("已剔除", "struck"),
    "word": ("运营方更正", "word"),
    "no_event": (
        "没有找到此记录，或您无权查看；请核对来源与编号。",
        "No such event, or it is not yours to see. Check source and id.",
    ),
    "fixed_clock": ("演示数据，时钟固定于", "Demonstration; the clock stands at"),
    "home": ("返回首页", "Back to the start"),
    "error_not_found": ("找不到此页", "Nothing here"),
    "error_not_found_text": (
        "页面不存在，或您无权查看。",
        "This page does not exist, or it is not yours to see.",
    ),
    "error_forbidden": ("无权访问", "Not for this key"),
    "error_forbidden_text": ("您的密钥没有此权限。", "Your key may not do this."),
    "error_form_refused": ("表单已过期", "This form is too old"),
    "error_form_refused_text": ("请重新打开页面后再试。", "Open the page again and try once more."),
    "error_counting": ("正在计算", "Counting"),
    "error_counting_text": ("用量正在统计，页面将自动刷新。", "Usage is being counted; this page reloads by itself."),
    "error_busy": ("系统繁忙", "Busy"),
    "error_busy_text": ("请几秒后再试，页面将自动刷新。", "This page tries again in a few seconds."),
    "error_internal": ("出错了", "Something went wrong"),
    "error_internal_text": ("问题已记录，请稍后再试。", "It has been logged. Please try again later."),
    "error_refused": ("无法处理", "This cannot be done"),
    "error_refused_text": ("请检查请求后再试。", "Check what was asked for and try again."),
}


def word(key: str, language: Language) -> str:
    """Return a word of the pages in a language."""
    return WORDS[key][0 if language == "zh" else 1]


def money(minor: int, currency: str) -> str:
    """Write an amount for a reader: `−¥1,204.50`."""
    text = f"{SYMBOLS[currency]}{format_grouped(abs(minor), currency)}"
    return f"−{text}" if minor < 0 else text


def hours(value: Fraction | str) -> str:
    """Write a quantity for a reader, with two decimals and thousands separated."""
    text = decimal_text(Fraction(value), _HOUR_DIGITS)
    whole, _, part = text.lstrip("-").partition(".")
    return f"{'−' if text.startswith('-') else ''}{int(whole):,}.{part:0<{_HOUR_DIGITS}}"


def quantity(value: Fraction | str) -> str:
    """Write a quantity without zeros at the end."""
    whole, dot, part = hours(value).partition(".")
    part = part.rstrip("0")
    return f"{whole}{dot}{part}" if part else whole


def day(value: date, language: Language) -> str:
    """Write a day within the year: `11月3日`, `3 Nov`."""
    if language == "zh":
        return f"{value.month}月{value.day}日"
    return f"{value.day} {_MONTHS[value.month - 1]}"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def named(name: str, name_en: str, language: Language) -> str:
    """Return a name in a language, where there is one."""
    return name_en if language == "en" and name_en else name
