"""The documentation stays true: links lead somewhere, commands exist, the configuration shown can be applied."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from hourbook.applying import ALL_KINDS
from hourbook.cli.main import app
from metering.cloud_events import read_events
from pricing.catalog import Catalog
from pricing.checks import check
from pricing.toml_files import facts_of, read_tables
from reconciliation import contract as suppliers
from reconciliation.contract import Supplier, SupplierContract

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "fixtures/**/*.md", "tests/**/*.md", "benchmarks/**/*.md")
    for page in ROOT.glob(pattern)
)
WITH_COMMANDS = [ROOT / "README.md", ROOT / "docs" / "configuration.md", *sorted((ROOT / "docs/guides").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Shown(NamedTuple):
    """A command line on a page; `whole` where it can be typed as it stands, so nothing may be missing."""

    page: str
    line: str
    whole: bool


def fenced(page: Path, language: str) -> list[str]:
    return [body for name, body in _FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def shown_commands() -> Iterator[Shown]:
    for page in WITH_COMMANDS:
        for block in fenced(page, "console"):
            for line in block.splitlines():
                if line.startswith("$ hourbook"):
                    yield Shown(page.name, line.removeprefix("$ "), whole=True)
        for text in _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            if text.startswith("hourbook ") and "…" not in text:
                yield Shown(page.name, text, whole=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_picture_leads_to_something_in_the_repository(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors_of(linked), f"{page.name} links to {target}, but {linked.name} has no such heading"


def anchors_of(page: Path) -> set[str]:
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("shown", list(shown_commands()), ids=lambda shown: f"{shown.page}: {shown.line}")
def test_every_command_line_shown_is_one_that_exists(shown: Shown) -> None:
    check_command(shown.line, whole=shown.whole)


def test_a_command_or_option_that_does_not_exist_is_noticed() -> None:
    for line in ("hourbook bill 2026-11", "hourbook close 2026-11 --force", "hourbook close 2026-11 2026-12"):
        with pytest.raises(AssertionError):
            check_command(line, whole=True)
    with pytest.raises(AssertionError):
        check_command("hourbook topup u-beichen-cs 5000.00", whole=True)


def check_command(line: str, *, whole: bool) -> None:
    """Follow a command line through the command line's own tree; files and values are not looked at."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while isinstance(command, TyperGroup):
        words = _without_options(command, words, line)
        if not words:
            assert not whole or command.invoke_without_command, f"{line}: a command is missing"
            return
        assert words[0] in command.commands, f"{line}: there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    given = _without_options(command, words, line)
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    many = any(argument.nargs < 0 for argument in arguments)
    assert many or len(given) <= len(arguments), f"{line}: too many arguments"
    if whole:
        needed = sum(argument.required for argument in arguments)
        assert len(given) >= needed, f"{line}: an argument is missing"
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.required:
                assert set(parameter.opts) & set(words), f"{line}: {parameter.opts[0]} is missing"


def _without_options(command: Any, words: list[str], line: str) -> list[str]:  # noqa: ANN401 - typer's own types
    """Take the options of a command out of its words; of a group, stop at the name of the next command."""
    known = {name: option for option in command.params for name in option.opts if name.startswith("-")}
    rest, at = [], 0
    while at < len(words):
        word = words[at]
        if not word.startswith("--"):
            if isinstance(command, TyperGroup):
                return words[at:]
            rest.append(word)
            at += 1
            continue
        assert word in known, f"{line}: there is no option {word}"
        takes_value = not known[word].is_flag
        assert not takes_value or at + 1 < len(words), f"{line}: {word} needs a value"
        at += 2 if takes_value else 1
    return rest


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [block] = fenced(ROOT / "docs" / "configuration.md", "toml")
    file = tmp_path_factory.mktemp("documented") / "configuration.toml"
    file.write_text(block, encoding="utf-8")
    return file


def test_the_configuration_shown_can_be_applied(configuration: Path) -> None:
    entries, problems = read_tables([configuration], ALL_KINDS)
    assert not problems
    facts = facts_of(entries)
    catalog = Catalog.from_facts(facts)
    made = [Supplier.model_validate(body) for body in facts["supplier"].values()]
    agreed = [SupplierContract.model_validate(body) for body in facts["supplier_contract"].values()]
    assert not check(catalog)
    assert not suppliers.check(made, agreed, catalog.clusters)


def test_the_configuration_page_shows_every_table_and_every_key(configuration: Path) -> None:
    shown = tomllib.loads(configuration.read_text(encoding="utf-8"))
    assert shown.keys() == ALL_KINDS.keys()
    keys: dict[type[BaseModel], set[str]] = defaultdict(set)
    for table, kind in ALL_KINDS.items():
        for entry in [shown[table]] if kind.single else shown[table]:
            _collect(kind.model, entry, keys)
    missing = {model.__name__: model.model_fields.keys() - found for model, found in keys.items()}
    assert not {name: sorted(fields) for name, fields in missing.items() if fields}


def _collect(model: type[BaseModel], entry: Mapping[str, Any], keys: dict[type[BaseModel], set[str]]) -> None:
    """Note which keys of a model are shown, and which of the models that stand inside it."""
    keys[model].update(entry)
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            keys[inner] |= set()  # also one that is never shown
            for part in entry.get(name, ()):
                _collect(inner, part, keys)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - a type annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def test_the_usage_event_shown_is_accepted() -> None:
    [example] = fenced(ROOT / "docs" / "guides" / "operator.md", "json")
    now = datetime(2026, 12, 1, 2, tzinfo=UTC)
    read = read_events(example.encode(), format="json", now=now)
    assert not read.rejected
    assert read.events["cards"].to_list() == ["a800:2000"]


def test_the_readme_names_every_package_and_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert not [name for name in commands if f"hourbook {name}" not in readme]
    packages = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert not [name for name in packages if f"| `{name}/` |" not in readme]
