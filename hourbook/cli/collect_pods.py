"""`collect kubernetes`: pods from the API of a cluster, as they come and go."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hourbook.cli.collect_logs import tell_if_undescribed, tell_problems, tell_receipts
from hourbook.cli.home import home_of
from hourbook.cli.output import Format, FormatOption, refusals, refuse, say
from hourbook.cli.reading import read_words
from hourbook.collecting import PASSING
from hourbook.collecting_pods import PodSource, PodsPolled, poll_pods
from hourbook.importing import OtherLog
from hourbook.kube_access import KubeConfigError, kube_access
from hourbook.refreshing import refresh
from hourbook.settings import Home
from metering.collectors.registry import COLLECTORS, OptionsError
from metering.log_sources import IN_CLUSTER

EXAMPLE = "Example: hourbook collect kubernetes --cluster ai1 --kubeconfig /etc/hourbook/ai1.kubeconfig"


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("kubernetes", epilog=EXAMPLE)(kubernetes)


def kubernetes(  # noqa: PLR0913, PLR0917 - the command's own options
    context: typer.Context,
    cluster: Annotated[str, typer.Option(parser=read_words, metavar="NAME", help="Whose pods they are.")],
    kubeconfig: Annotated[
        str, typer.Option(metavar="FILE", help=f"How to reach it; {IN_CLUSTER} from a pod inside.")
    ] = IN_CLUSTER,
    options: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML: labels, shares of cards, what is left out.")
    ] = None,
    interval: Annotated[int, typer.Option(min=1, help="Seconds between two lists; a watch runs meanwhile.")] = 60,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,  # noqa: FBT002
    form: FormatOption = Format.table,
) -> None:
    """Collect pods of a Kubernetes cluster from its API."""
    home, reader = home_of(context), COLLECTORS["kubernetes"]
    with refusals(OptionsError, KubeConfigError):
        said = reader.parse_options(options.read_text(encoding="utf-8")) if options else None
        source = PodSource(OtherLog(reader, cluster, options=said), kube_access(kubeconfig))
    tell_if_undescribed(home, cluster)
    if once:
        polled = _look(home, source, 1)
        tell_receipts(polled.receipts, form)
        tell_problems(polled.problems, ())
        if polled.problems:
            raise refuse(f"{len(polled.problems)} problem(s) with {source.access.server}")
        say(f"{polled.pods} pod(s) listed", form)
        return
    _look_for_ever(home, source, interval, form)


def _look_for_ever(home: Home, source: PodSource, interval: int, form: Format) -> None:
    told: Sequence[str] = ()
    watch_seconds = 1  # what was missed while nothing ran
    while True:
        began = time.monotonic()
        polled = _look(home, source, watch_seconds)
        tell_receipts(polled.receipts, form)
        tell_problems(polled.problems, told)
        told, first = polled.problems, watch_seconds != interval
        watch_seconds = interval
        if not first or polled.problems:
            time.sleep(max(0.0, interval - (time.monotonic() - began)))


def _look(home: Home, source: PodSource, watch_seconds: int) -> PodsPolled:
    """Look once, and count what was seen; a problem is told, not raised."""
    polled = PodsPolled()
    try:
        polled = poll_pods(home, source, watch_seconds=watch_seconds)
        if polled.receipts:
            refresh(home)
    except PASSING as error:
        polled.problems.append(str(error))
    return polled
