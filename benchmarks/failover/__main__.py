"""`just failover`: what is lost, doubled, and how long nobody is served, when servers fail.

Three nodes under Patroni, etcd and HAProxy, in folders of their own. Credits are spent, held and
bought by every way in while the leader changes or dies; what was acknowledged is then compared with
the books. The API reaches the cluster through HAProxy, whoever uses the library by several hosts.

Exit code 1: something was lost or doubled, or took too long. 77: something is not installed.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.failover import report
from benchmarks.failover.cluster import NODES, Cluster
from benchmarks.failover.events import EVENTS, Event, mount_small_disk, unmount
from benchmarks.failover.folders import folder_of_run, outcome
from benchmarks.failover.programs import account
from benchmarks.failover.service import Service
from benchmarks.failover.trials import ACKNOWLEDGED, ACKNOWLEDGED_SHORT, Trials


@contextmanager
def folders_of_nodes(parent: Path, *, small_disks: bool) -> Generator[tuple[list[Path], bool]]:
    """The nodes' folders, and whether each is a small file system of its own."""
    folders = [parent / f"node{number}" for number in range(1, NODES + 1)]
    is_small = small_disks
    for each in folders:
        each.mkdir()
        is_small = is_small and mount_small_disk(each)
        account().own(each)
    try:
        yield folders, is_small
    finally:
        for each in folders:
            unmount(each)


def main(
    *,
    short: Annotated[bool, typer.Option("--short", help="A few events, few operations.")] = False,
    only: Annotated[str, typer.Option("--only", help="Events whose name has this word.")] = "",
) -> None:
    """Run the events one after the other, and print a table."""
    events = [each for each in EVENTS if (each.is_short or not short) and only in each.name]
    raise typer.Exit(outcome("failover", lambda: _run(events, is_short=short)))


def _run(events: list[Event], *, is_short: bool) -> list[str]:
    small_disks = any(each.needs_small_disks for each in events)
    with (
        folder_of_run("failover") as parent,
        folders_of_nodes(parent, small_disks=small_disks) as (folders, is_small),
    ):
        print("Starting etcd, three nodes and HAProxy", flush=True)
        cluster = Cluster(parent, account(), folders)
        cluster.start()
        service = Service(parent, cluster.through_haproxy(), cluster.by_hosts())
        service.prepare()
        service.start_api()
        trials = Trials(
            service,
            lambda: cluster.connect(cluster.leader()),
            cluster.is_whole,
            ACKNOWLEDGED_SHORT if is_short else ACKNOWLEDGED,
            judges_gaps=not is_short,
        )
        print(report.head(), flush=True)
        for event in events:
            if event.needs_small_disks and not is_small:
                print(f"{event.name:<38} NOT RUN: needs root, who may mount a small file system")
                continue
            trials.run(event.name, partial(event.do, cluster), event.bound_seconds)
        cluster.close()
        return trials.failures


if __name__ == "__main__":
    typer.run(main)
