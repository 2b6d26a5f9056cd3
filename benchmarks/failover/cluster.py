"""Three PostgreSQL nodes under Patroni, one etcd, HAProxy before them: in folders of their own."""

import json
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from benchmarks.failover.processes import (
    HarnessFailed,
    Process,
    family,
    signal_all,
    until,
)
from benchmarks.failover.programs import install_patroni, postgres_programs, program
from benchmarks.failover.wires import Wire
from src.local_postgres import free_port
from src.local_postgres.accounts import Account

HOST = "127.0.0.1"
SUPERUSER = "postgres"
PASSWORD = "of-a-cluster-that-lives-for-minutes"  # noqa: S105  and on loopback only
DATABASE = "flashslides"
SCOPE = "flashslides"
NODES = 3
TTL_SECONDS = 30
LOOP_WAIT_SECONDS = 10
_ASK_SECONDS = 5.0
_SERVER_SETTINGS = {
    "max_connections": 200,
    "shared_buffers": "64MB",
    "wal_level": "replica",
    "wal_log_hints": "on",
    "max_wal_size": "256MB",
}


@dataclass
class Node:
    """One server, its Patroni and its way to etcd."""

    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    rest_port: int = field(default_factory=free_port)
    etcd: Wire = field(init=False)
    patroni: Process | None = None

    @property
    def data(self) -> Path:
        """The server's data folder."""
        return self.folder / "data"

    @property
    def postmaster_pid(self) -> int | None:
        """The server's first process, None where there is none."""
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def processes(self) -> list[int]:
        """Patroni and the server, with all their processes."""
        return [] if self.patroni is None else family(self.patroni.pid)

    def walreceivers(self) -> list[int]:
        """The processes that fetch the log from the leader."""
        server = self.postmaster_pid
        if server is None:
            return []
        return [pid for pid in family(server) if "walreceiver" in _command_of(pid)]

    def is_leader(self) -> bool:
        """Whether its Patroni says so, having the lock."""
        return self._answers("primary")

    def is_sound(self) -> bool:
        """Whether it leads, or follows and is not behind."""
        return self._answers("primary") or self._answers("replica?lag=1MB")

    def is_synchronous(self) -> bool:
        """Whether a commit waits for it, or for one like it."""
        return self._answers("quorum")

    def _answers(self, path: str) -> bool:
        try:
            answer = httpx.get(f"http://{HOST}:{self.rest_port}/{path}", timeout=_ASK_SECONDS)
        except httpx.TransportError:
            return False
        return answer.is_success


class Cluster:
    """The nodes and what stands around them; started as an ordinary account."""

    def __init__(self, folder: Path, runner: Account, data_folders: list[Path]) -> None:
        """`data_folders` are those of the nodes, made already and the account's."""
        self._folder = folder
        self._runner = runner
        self._programs = postgres_programs()
        self._python = install_patroni(folder, runner)
        self._supervisor = Path(shutil.copy(Path(__file__).with_name("supervisor.py"), folder))
        self._supervisor.chmod(0o644)
        self._etcd_port = free_port()
        self.haproxy_port = free_port()
        self.nodes = [Node(each.name, each) for each in data_folders]
        self._haproxy_program, self._etcd_program = program("haproxy"), program("etcd")
        self._etcdctl = program("etcdctl")

    def start(self) -> None:
        """Start everything, until there is a leader with a synchronous standby."""
        self._start_etcd()
        for node in self.nodes:
            node.etcd = Wire(self._etcd_port)
            self.start_node(node)
        self._start_haproxy()
        until(self.is_whole, "three sound nodes, one of them a synchronous standby")
        with self.connect(self.leader(), "postgres") as admin:
            admin.execute(f'CREATE DATABASE "{DATABASE}"')

    def start_node(self, node: Node) -> None:
        """Start a node's Patroni, which starts its server."""
        written = node.folder / "patroni.yml"
        written.write_text(json.dumps(self._configuration(node), indent=1))
        self._runner.own(written)
        command: list[str | Path] = [
            self._python,
            self._supervisor,
            self._python,
            "-m",
            "patroni",
            written,
        ]
        node.patroni = Process(node.name, command, node.folder, self._runner)

    def leader(self) -> Node:
        """The node that leads.

        Raises:
            HarnessFailed: none does for long.
        """
        until(lambda: any(node.is_leader() for node in self.nodes), "a leader")
        return next((node for node in self.nodes if node.is_leader()), self.nodes[0])

    def followers(self) -> list[Node]:
        """The others."""
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def is_whole(self) -> bool:
        """Whether all nodes are sound, and a commit waits for one of them."""
        return all(node.is_sound() for node in self.nodes) and any(
            node.is_synchronous() for node in self.nodes
        )

    def switch_over(self) -> None:
        """Have a synchronous standby lead, in order.

        Raises:
            HarnessFailed: Patroni refuses.
        """
        leader = self.leader()
        wanted = {"leader": leader.name}
        answer = httpx.post(
            f"http://{HOST}:{leader.rest_port}/switchover", json=wanted, timeout=120
        )
        if not answer.is_success:
            raise HarnessFailed(f"No switchover: {answer.status_code} {answer.text}")

    def lease_seconds(self) -> int:
        """How long the leader's lock is still valid, if it is not renewed."""
        key = f"/service/{SCOPE}/leader"
        [found] = self._ask_etcd("get", key)["kvs"]
        lease = f"{found['lease']:x}"
        return int(self._ask_etcd("lease", "timetolive", lease)["ttl"])

    def connect(self, node: Node, database: str = DATABASE) -> psycopg.Connection:
        """A connection of the harness's own; each statement commits."""
        return psycopg.connect(
            host=HOST,
            port=node.port,
            user=SUPERUSER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
            connect_timeout=10,
        )

    def environment(self, host: str, port: str) -> dict[str, str]:
        """The settings that lead to the cluster by this way."""
        return {
            "DATABASE_HOST": host,
            "DATABASE_PORT": port,
            "DATABASE_NAME": DATABASE,
            "DATABASE_USER": SUPERUSER,
            "DATABASE_PASSWORD": PASSWORD,
        }

    def through_haproxy(self) -> dict[str, str]:
        """One address, and HAProxy knows who leads."""
        return self.environment(HOST, str(self.haproxy_port))

    def by_hosts(self) -> dict[str, str]:
        """All addresses, and who connects finds who leads."""
        hosts = ",".join([HOST] * len(self.nodes))
        return self.environment(hosts, ",".join(str(node.port) for node in self.nodes))

    def close(self) -> None:
        """Close the ways to etcd; the processes are ended with all others."""
        for node in self.nodes:
            node.etcd.close()

    def kill(self, node: Node) -> None:
        """End Patroni and the server at once, Patroni first: it would start the server again."""
        pids = node.processes()
        signal_all(pids, signal.SIGKILL)
        node.patroni = None

    def _ask_etcd(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [self._etcdctl, f"--endpoints={HOST}:{self._etcd_port}", *words, "-w", "json"],
            env={"ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _start_etcd(self) -> None:
        peer = f"http://{HOST}:{free_port()}"
        client = f"http://{HOST}:{self._etcd_port}"
        command: list[str | Path] = [
            *(self._etcd_program, "--name=etcd", f"--data-dir={self._folder / 'etcd'}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=etcd={peer}",
        ]
        etcd = Process("etcd", command, self._folder, self._runner)

        def answers() -> bool:
            try:
                return httpx.get(f"{client}/health").is_success
            except httpx.TransportError:
                return False

        until(lambda: answers() or etcd.has_ended, "etcd")
        if etcd.has_ended:
            raise HarnessFailed(f"etcd did not start: {etcd.tail()}")

    def _start_haproxy(self) -> None:
        servers = "\n".join(
            f"    server {node.name} {HOST}:{node.port} check port {node.rest_port}"
            for node in self.nodes
        )
        written = self._folder / "haproxy.cfg"
        written.write_text(_HAPROXY.format(port=self.haproxy_port, servers=servers))
        self._runner.own(written)
        command: list[str | Path] = [self._haproxy_program, "-db", "-f", written]
        Process("haproxy", command, self._folder, self._runner)

    def _configuration(self, node: Node) -> dict[str, Any]:
        return {
            "scope": SCOPE,
            "name": node.name,
            "restapi": {
                "listen": f"{HOST}:{node.rest_port}",
                "connect_address": f"{HOST}:{node.rest_port}",
            },
            # Its own way to etcd alone: it would ask etcd for other addresses otherwise.
            "etcd3": {"hosts": [f"{HOST}:{node.etcd.port}"], "use_proxies": True},
            "bootstrap": {"dcs": _DCS, "initdb": ["data-checksums", {"encoding": "UTF8"}]},
            "postgresql": {
                "listen": f"{HOST}:{node.port}",
                "connect_address": f"{HOST}:{node.port}",
                "data_dir": str(node.data),
                "bin_dir": str(self._programs),
                "pgpass": str(node.folder / "pgpass"),
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
                "parameters": {"unix_socket_directories": str(node.folder)},
                "pg_hba": [
                    "local all all trust",
                    f"host replication replicator {HOST}/32 scram-sha-256",
                    f"host all all {HOST}/32 scram-sha-256",
                ],
                "authentication": {
                    "superuser": {"username": SUPERUSER, "password": PASSWORD},
                    "replication": {"username": "replicator", "password": PASSWORD},
                },
            },
        }


_DCS = {
    "ttl": TTL_SECONDS,
    "loop_wait": LOOP_WAIT_SECONDS,
    "retry_timeout": 10,
    # Any of the standbys has a commit before it is answered, and who has most of the log leads
    # next. With one standby named instead, the other may have more, and rewinds before it follows.
    "synchronous_mode": "quorum",
    # No answer before a second server has it, also while none can have it.
    "synchronous_mode_strict": True,
    "postgresql": {"use_pg_rewind": True, "parameters": _SERVER_SETTINGS},
}

_HAPROXY = """
defaults
    mode tcp
    maxconn 500
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout check 2s

listen primary
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has just ended
        return ""
