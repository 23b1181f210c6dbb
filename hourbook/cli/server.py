"""`key` and `serve`."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated

import typer

from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, console, errors, notice, print_rows, refusals, refuse
from hourbook.database import read_session, run_write
from hourbook.importing import catalog_of
from hourbook.keys import KeyRefusedError, create_key, list_keys, revoke_key
from hourbook.receiving import UnknownCustomerError
from hourbook.settings import Settings

group = typer.Typer(help="Keys for the API and the pages: make, list, revoke.", no_args_is_help=True)

COLUMNS = ("id", "role", "customer", "created", "revoked", "clusters")


class RoleName(StrEnum):
    """What a key is for."""

    collector = "collector"
    customer = "customer"
    finance = "finance"
    operator = "operator"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command("create", epilog="Example: hourbook key create --role customer --customer u-beichen-cs")(create)
    group.command("list", epilog="Example: hourbook key list --format json")(list_all)
    group.command("revoke", epilog="Example: hourbook key revoke 3fa9c2017b5d")(revoke)
    app.add_typer(group, name="key")
    app.command("serve", epilog="Example: hourbook serve --port 8000")(serve)


def create(
    context: typer.Context,
    role: Annotated[RoleName, typer.Option(help="Sends usage; reads one customer's data; reads all; tends usage.")],
    customer: Annotated[str, typer.Option(help="Whose data it reads; with --role customer only.")] = "",
    clusters: Annotated[
        list[str] | None, typer.Option("--cluster", help="Of a collector: the only one it reports of; may be repeated.")
    ] = None,
) -> None:
    """Make a key and print it: it is shown this once, and only its hash is kept."""
    home = home_of(context)
    with refusals(KeyRefusedError, UnknownCustomerError):
        key = run_write(
            home.engine,
            lambda session: create_key(session, role.value, home.now(), customer=customer, clusters=clusters or ()),
        )
    typer.echo(key)
    for name in sorted({*(clusters or ())} - catalog_of(home).clusters.keys()):
        notice(f"no cluster {name} is described: check the name, or describe it under [[clusters]] and apply that")
    errors.print("keep it now: it cannot be shown again", style="yellow")


def list_all(context: typer.Context, form: FormatOption = Format.table) -> None:
    """List keys; their secrets are nowhere to be seen."""
    home = home_of(context)
    with read_session(home.engine) as session:
        rows = [
            {
                "id": key.id,
                "role": key.role,
                "customer": key.customer,
                "clusters": ", ".join(key.clusters),
                "created": key.created_at.isoformat(timespec="seconds"),
                "revoked": key.revoked_at.isoformat(timespec="seconds") if key.revoked_at else "",
            }
            for key in list_keys(session)
        ]
    print_rows(COLUMNS, rows, form, empty="no keys yet; `hourbook key create` makes one")


def revoke(
    context: typer.Context, key: Annotated[str, typer.Argument(metavar="ID", help="As `key list` shows it.")]
) -> None:
    """End a key: it is refused from this moment, and whoever is signed in with it is signed out."""
    home = home_of(context)
    with refusals(KeyRefusedError):
        new = run_write(home.engine, lambda session: revoke_key(session, key, home.now()))
    console.print(f"{key} {'is revoked' if new else 'was revoked before'}", highlight=False)


def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    host: Annotated[str, typer.Option(help="On which address; the default is reachable from this machine only.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Serve the API and the pages; usage that arrives is charged every few seconds."""
    import uvicorn

    from hourbook.api.app import create_app

    home, settings = home_of(context), Settings()
    if not is_loopback(host):
        if home.fixed_clock:
            raise refuse(f"the clock of this home is fixed, so it is not served on {host}; leave --host out")
        if not settings.public_url.startswith("https://"):
            errors.print(
                "keys and pages travel unencrypted: put a TLS proxy in front and set HOURBOOK_PUBLIC_URL",
                style="yellow",
            )
    console.print(f"serving {home.path} on http://{host}:{port}", highlight=False)
    uvicorn.run(
        create_app(home, settings), host=host, port=port, log_level="warning", server_header=False, proxy_headers=False
    )


def is_loopback(host: str) -> bool:
    """Tell whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
