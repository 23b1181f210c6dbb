"""`collect slurm`: the login node's collector, from here; `collect program` writes it as one file to copy."""

from __future__ import annotations

import io
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from hourbook.cli.output import refuse, say
from hourbook.slurm_node.main import run

MAIN = "import sys\n\nfrom slurm_node.main import run\n\nsys.exit(run(program='hourbook-slurm'))\n"
SHEBANG = b"#!/usr/bin/env python3\n"
# One date for all files, so that the same version is the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
EXAMPLE = "hourbook collect slurm --cluster hpc1 --server https://billing.example.cn --key-file collector.key"


def register(group: typer.Typer) -> None:
    """Add the commands."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    group.command("slurm", context_settings=passed_on, epilog=f"Example: {EXAMPLE}")(slurm)
    group.command("program", epilog="Example: hourbook collect program hourbook-slurm.pyz")(program)


def slurm(context: typer.Context) -> None:
    """Follow a Slurm cluster with sacct, and send its jobs to a server; --help tells the options."""
    raise typer.Exit(run(context.args))


def program(
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="Where to write it.")],
) -> None:
    """Write the collector for Slurm as one file that needs nothing but Python 3.9 on the login node."""
    try:
        file.write_bytes(program_bytes())
        file.chmod(0o755)
    except OSError as error:
        raise refuse(f"{file} cannot be written: {error.strerror}") from error
    say(f"copy {file} to a node where sacct works, and run: python3 {file.name} --help")


def program_bytes() -> bytes:
    """Return the program: a zip file of its modules that Python runs as it is."""
    package = files("hourbook.slurm_node")
    modules = sorted(part.name for part in package.iterdir() if part.name.endswith(".py"))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", EPOCH), MAIN)
        for name in modules:
            archive.writestr(zipfile.ZipInfo(f"slurm_node/{name}", EPOCH), (package / name).read_bytes())
    return SHEBANG + content.getvalue()
