"""What is done to a cluster under load: each event, what mends it, how long it may interrupt."""

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.failover.cluster import LOOP_WAIT_SECONDS, TTL_SECONDS, Cluster, Node
from benchmarks.failover.processes import signal_all, until

RENEWED_BEFORE_SECONDS = LOOP_WAIT_SECONDS // 2
"""How long before a kill the leader's lock was renewed: in the middle of what it may be."""
_DEAF_SECONDS = 35.0
"""Three times as long as a client waits for a COMMIT, which no time-out of the server ends.

What the first try has left on the leader alone must not be taken for done by the third."""
_FILLER = "filler"
_BLOCK = bytes(1 << 20)
_WAL_SWITCHES = 30

Mend = Callable[[], None]


@dataclass(frozen=True)
class Event:
    """Something that happens to the cluster."""

    name: str
    do: Callable[[Cluster], Mend]
    """Do it, wait until another node leads, and return what brings the node back."""
    bound_seconds: float | None = None
    """How long clients may be without an answer; None where that is only told."""
    is_short: bool = False
    """Whether it belongs to the short form."""
    needs_small_disks: bool = False


def _switch_over(cluster: Cluster) -> Mend:
    cluster.switch_over()
    return lambda: None


def _kill_leader(cluster: Cluster) -> Mend:
    leader = cluster.leader()
    wanted = TTL_SECONDS - RENEWED_BEFORE_SECONDS
    until(lambda: cluster.lease_seconds() == wanted, f"a lock that is valid for {wanted} s")
    cluster.kill(leader)
    _until_another_leads(cluster, leader)
    return lambda: cluster.start_node(leader)


def _freeze_leader(cluster: Cluster) -> Mend:
    leader = cluster.leader()
    pids = leader.processes()
    signal_all(pids, signal.SIGSTOP)
    _until_another_leads(cluster, leader)
    return lambda: signal_all(pids, signal.SIGCONT)


def _cut_leader_from_etcd(cluster: Cluster) -> Mend:
    leader = cluster.leader()
    leader.etcd.cut()
    _until_another_leads(cluster, leader)
    return leader.etcd.mend


def _fill_disk_of_leader(cluster: Cluster) -> Mend:
    leader = cluster.leader()
    filler = leader.folder / _FILLER
    _fill(filler)
    _use_up_log(cluster, leader)
    _until_another_leads(cluster, leader)
    return filler.unlink


def _deafen_standbys_and_kill_leader(cluster: Cluster) -> Mend:
    """What the leader commits alone is lost with it: nothing of it may have been acknowledged.

    The receivers are killed while they are frozen: what their sockets hold never arrives.
    """
    leader = cluster.leader()
    receivers = [pid for node in cluster.followers() for pid in node.walreceivers()]
    signal_all(receivers, signal.SIGSTOP)
    time.sleep(_DEAF_SECONDS)  # clients time out, and try again with their keys
    cluster.kill(leader)
    signal_all(receivers, signal.SIGKILL)
    _until_another_leads(cluster, leader)
    return lambda: cluster.start_node(leader)


def _until_another_leads(cluster: Cluster, before: Node) -> None:
    others = [node for node in cluster.nodes if node is not before]
    until(lambda: any(node.is_leader() for node in others), "another leader")


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(_BLOCK)


def _use_up_log(cluster: Cluster, leader: Node) -> None:
    """Have the server need new files for its log, until it has stopped."""
    for _ in range(_WAL_SWITCHES):
        try:
            with cluster.connect(leader) as admin:
                admin.execute("SELECT pg_logical_emit_message(false, 'load', repeat('x', 1000))")
                admin.execute("SELECT pg_switch_wal()")
        except psycopg.Error:
            return


EVENTS = (
    Event("switchover", _switch_over, bound_seconds=5.0, is_short=True),
    Event("leader and its Patroni killed", _kill_leader, bound_seconds=30.0, is_short=True),
    Event("standbys deaf, then leader killed", _deafen_standbys_and_kill_leader, is_short=True),
    Event("leader and its Patroni frozen", _freeze_leader),
    Event("network cut between leader and etcd", _cut_leader_from_etcd),
    Event("leader's disk full", _fill_disk_of_leader, needs_small_disks=True),
)


def mount_small_disk(folder: Path, size: str = "800m") -> bool:
    """Make a folder a small file system of its own; False where this account may not."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def unmount(folder: Path) -> None:
    """Take it away."""
    command = ["umount", "--lazy", str(folder)]
    subprocess.run(command, capture_output=True, check=False)
