"""How pages are made: templates, language, and the values that a customer's page shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from http import HTTPStatus
from typing import Any, cast

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.exc import DBAPIError

from base.money import minor_digits, parse_amount
from hourbook.errors import MEANINGS, Meaning, NotSignedInError
from hourbook.importing import catalog_of
from hourbook.serving import home_of, settings_of, takes_payments
from hourbook.web.charts import Chart, bar_chart, share
from hourbook.web.figures import CustomerFigures, SourceRest
from hourbook.web.signing import Visitor, visitor_of
from hourbook.web.words import LANGUAGES, SYMBOLS, WORDS, Language, day, hours, money, named, quantity, word
from pricing.charges import UNIT_SCALE

LANGUAGE_COOKIE = "hourbook_language"
YEAR_SECONDS = 365 * 24 * 3600
LOW_DAYS = 7  # from here on a page warns
MANY_DAYS = 730  # beyond, the exact number tells nothing
LABELS = 4  # dates below a chart

TEMPLATES = Environment(
    loader=PackageLoader("hourbook.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(
    request: Request,
    template: str,
    visitor: Visitor,
    default: Language | None = None,
    **values: Any,  # noqa: ANN401 - whatever the template shows
) -> HTMLResponse:
    """Make a page, in the language that was asked for, else in the one given."""
    home, language = home_of(request), language_of(request, default)
    catalog = catalog_of(home)
    operator, fixed = catalog.operator, home.fixed_clock
    common = {
        "w": lambda key: word(key, language),
        "money": money,
        "hours": hours,
        "quantity": quantity,
        "share": share,
        "named": named,
        "language": language,
        "languages": LANGUAGES,
        "switches": {code: _with_language(request, code) for code in LANGUAGES},
        "operator_name": named(operator.name, operator.name_en, language) if operator else "Hourbook",
        "caller": visitor.caller,
        "form_token": visitor.form_token,
        "fixed_clock": fixed.astimezone(catalog.zone()).strftime("%Y-%m-%d %H:%M") if fixed else "",
        "takes_payments": takes_payments(settings_of(request)),
        "here": "",
    }
    page = HTMLResponse(TEMPLATES.get_template(template).render({**common, **values}))
    if request.query_params.get("lang") in LANGUAGES:
        page.set_cookie(LANGUAGE_COOKIE, language, max_age=YEAR_SECONDS, httponly=True, samesite="strict")
    return page


def language_of(request: Request, default: Language | None = None) -> Language:
    """Return the language of a page: as asked for, as asked for before, the customer's, the browser's."""
    for chosen in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE), default):
        if chosen in LANGUAGES:
            return cast("Language", chosen)
    return "en" if request.headers.get("accept-language", "").lower().startswith("en") else "zh"


def _with_language(request: Request, code: str) -> str:
    return f"?{request.url.include_query_params(lang=code).query}"


def error_page(request: Request, meaning: Meaning) -> Response:
    """Say what went wrong in words for people; who is not signed in is asked to."""
    if meaning is MEANINGS[NotSignedInError]:
        return RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    code = meaning.code if f"error_{meaning.code}" in WORDS else "refused"
    again = (meaning.headers or {}).get("Retry-After", "") if request.method == "GET" else ""
    page = render_page(request, "error.html", _visitor(request), code=code, again=again)
    page.status_code = meaning.status
    page.headers.update(meaning.headers or {})
    return page


def _visitor(request: Request) -> Visitor:
    """Return who looks at the page of an error, which must be told also where nobody can be looked up."""
    try:
        return visitor_of(request)
    except (DBAPIError, OSError):
        return Visitor("", None)


@dataclass(frozen=True)
class Plot:
    """One chart with its heading."""

    name: str
    sum: str
    chart: Chart
    top: str
    hint: str = ""


def customer_values(page: CustomerFigures, language: Language) -> dict[str, Any]:
    """Return what the template of a customer's page shows."""
    balance, currency = page.balance, page.balance.currency
    days_left = balance.days_left
    return {
        "page": page,
        "name": named(page.customer.name, page.customer.name_en, language),
        "amount": lambda minor: money(minor, currency),
        "minor": lambda text: parse_amount(text, currency),
        "symbol": SYMBOLS[currency],
        "credit_left": max(balance.credit_limit_minor - balance.credit_used_minor, 0),
        "credit_share": share(balance.credit_used_minor, balance.credit_limit_minor),
        "days_left": f"{MANY_DAYS}+" if days_left is not None and days_left > MANY_DAYS else days_left,
        "runs_low": days_left is not None and days_left < LOW_DAYS,
        "has_usage": any(one.core_hours or one.card_hours or one.amount_minor for one in page.days),
        "plots": list(_plots(page, language)),
        "labels": [day(page.days[place].day, language) for place in _places(len(page.days))],
        "project_names": {one.id: named(one.name, one.name_en, language) for one in page.customer.projects},
        "initial": _initial,
    }


def _plots(page: CustomerFigures, language: Language) -> Iterable[Plot]:
    """Yield the charts: charges always, hours of what was used."""
    currency = page.balance.currency
    unit = 10 ** minor_digits(currency)
    days = [day(one.day, language) for one in page.days]
    amounts = [Fraction(one.amount_minor, unit) for one in page.days]
    titles = [f"{name}: {money(one.amount_minor, currency)}" for name, one in zip(days, page.days, strict=True)]
    charges = bar_chart(amounts, titles)
    top = f"{SYMBOLS[currency]}{quantity(charges.top)}"
    hint = word("charges_hint", language)
    yield Plot(word("charges", language), money(page.amount_minor, currency), charges, top, hint)
    for key, total in (("core_hours", page.core_hours), ("card_hours", page.card_hours)):
        if total:
            yield _hours_plot(word(key, language), total, [getattr(one, key) for one in page.days], days)


def _hours_plot(name: str, total: Fraction, values: Sequence[Fraction], days: Sequence[str]) -> Plot:
    titles = [f"{when}: {hours(value)}" for when, value in zip(days, values, strict=True)]
    chart = bar_chart(values, titles)
    return Plot(name, hours(total), chart, quantity(chart.top))


def _places(count: int) -> list[int]:
    """Return which days are named below a chart: the first, the last, and some between."""
    return [place * (count - 1) // (LABELS - 1) for place in range(LABELS)]


def _initial(one: SourceRest) -> Fraction:
    return Fraction(one.source.quantity, UNIT_SCALE[one.rest.unit])
