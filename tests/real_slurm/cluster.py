"""A real Slurm on this machine: two nodes with cards that are none, a database of its own, gone when the test ends."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.real_slurm.programs import PLACES, ensure_programs

NAME = "hpc9"
NODES = ("cn1", "gn1")
START_SECONDS = 60
# Users whom every Debian has; their jobs sleep and do nothing else.
USERS = ("games", "man", "lp", "news")

SLURM_CONF = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=0,requeue_setup_env_fail
SwitchType=switch/none
KillWait=2
MinJobAge=600
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits
GresTypes=gpu
AccountingStorageTRES=gres/gpu,gres/gpu:a100
NodeName=cn1 NodeHostName={host} NodeAddr=127.0.0.1 Port={cn1} CPUs=16 CoresPerSocket=16 RealMemory=9000
NodeName=gn1 NodeHostName={host} NodeAddr=127.0.0.1 Port={gn1} CPUs=16 CoresPerSocket=16 RealMemory=9000 Gres=gpu:a100:4
PartitionName=cpu Nodes=cn1,gn1 Default=YES MaxTime=60 DefaultTime=5 State=UP DefMemPerCPU=100
PartitionName=gpu Nodes=gn1 MaxTime=60 DefaultTime=5 State=UP DefMemPerCPU=100
"""
# Slurm wants a device for each card; nothing is ever done with it.
GRES_CONF = "".join(
    f"NodeName=gn1 Name=gpu Type=a100 File={device}\n"
    for device in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
)
SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


@dataclass
class SlurmCluster:
    """A running cluster, and what is done with it."""

    folder: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What every program of Slurm must find to talk to this cluster and to no other."""
        return {"PATH": PLACES, "SLURM_CONF": str(self.folder / "slurm.conf"), "HOME": "/tmp", "TZ": "UTC"}  # noqa: S108

    def run(self, *command: str, user: str | None = None, check: bool = True) -> str:
        """Run a program of Slurm, and return what it says."""
        done = subprocess.run(
            command, env=self.environment, cwd="/", user=user, capture_output=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr.decode()}"
        return done.stdout.decode()

    def submit(self, user: str, *options: str, seconds: int) -> str:
        """Submit a job that sleeps, and return its number."""
        script = ["--output=/dev/null", "--chdir=/", "--wrap", f"sleep {seconds}"]
        return self.run("sbatch", "--parsable", *options, *script, user=user).strip().partition(";")[0]

    def control(self, *words: str) -> None:
        """Do something to a job or a node, as its administrator."""
        self.run("scontrol", *words)

    def state(self, job: str) -> str:
        """Return the state of a job as the controller sees it."""
        return self.run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}", check=False).strip()

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 45) -> None:
        """Wait until something holds, or fail by its name."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s; see {self.folder}"
            time.sleep(0.3)

    def wait_for(self, job: str, *states: str) -> None:
        """Wait until a job is in one of these states."""
        self.wait_until(lambda: self.state(job) in states, f"job {job} {' or '.join(states)}")

    def start(self, *command: str) -> None:
        """Start a daemon that is stopped with the cluster."""
        log = (self.folder / f"{Path(command[0]).name}.out").open("ab")
        with log:
            program = shutil.which(command[0], path=PLACES) or command[0]
            process = subprocess.Popen([program, *command[1:]], env=self.environment, cwd="/", stdout=log, stderr=log)
        self.daemons.append(process)

    def stop(self) -> None:
        """Stop all daemons, the last first; each is a process of ours, and no other is touched."""
        for process in reversed(self.daemons):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running_cluster() -> Iterator[SlurmCluster]:
    """Start a cluster in a folder of its own, and stop it and remove the folder at the end."""
    ensure_programs()
    folder = Path(tempfile.mkdtemp(prefix="hourbook-slurm-"))
    folder.chmod(0o755)  # jobs of other users look into it
    cluster = SlurmCluster(folder)
    try:
        _start_all(cluster)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _start_all(cluster: SlurmCluster) -> None:
    folder = cluster.folder
    sql, dbd, ctld, cn1, gn1 = _free_ports(5)
    facts = {"folder": folder, "host": socket.gethostname().partition(".")[0], "name": NAME}
    ports = {"sql": sql, "dbd": dbd, "ctld": ctld, "cn1": cn1, "gn1": gn1}
    password = secrets.token_hex(8)
    _write(folder / "slurm.conf", SLURM_CONF.format(**facts, **ports))
    _write(folder / "gres.conf", GRES_CONF)
    _write(folder / "cgroup.conf", "CgroupAutomount=no\n")
    _write(folder / "slurmdbd.conf", SLURMDBD_CONF.format(**facts, **ports, password=password), mode=0o600)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    _start_munge(cluster)
    _start_database(cluster, sql, password)
    cluster.start("slurmdbd", "-D")
    cluster.wait_until(lambda: "Cluster" in cluster.run("sacctmgr", "show", "cluster", check=False), "slurmdbd")
    _make_accounts(cluster)
    cluster.start("slurmctld", "-D")
    for node in NODES:
        cluster.start("slurmd", "-D", "-N", node)
    ready = ["sinfo", "--noheader", "--Node", "--format=%N %T", "--partition=cpu"]
    wanted = {f"{node} idle" for node in NODES}
    cluster.wait_until(lambda: set(cluster.run(*ready, check=False).splitlines()) == wanted, "idle nodes")


def _start_munge(cluster: SlurmCluster) -> None:
    folder = cluster.folder
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    options = [f"--{name}={folder / file}" for name, file in files.items()]
    cluster.start("munged", "--foreground", "--force", *options, f"--log-file={folder / 'munged.log'}")
    cluster.wait_until((folder / "munge.socket").exists, "munged")


def _start_database(cluster: SlurmCluster, port: int, password: str) -> None:
    data, log = cluster.folder / "sql", cluster.folder / "sql-install.log"
    options = ["--no-defaults", "--user=root", f"--datadir={data}"]
    with log.open("wb") as output:
        subprocess.run(
            ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"],
            env=cluster.environment,
            stdout=output,
            stderr=output,
            check=True,
        )
    where = [f"--socket={cluster.folder / 'sql.socket'}", "--bind-address=127.0.0.1", f"--port={port}"]
    quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900", "--innodb-buffer-pool-size=64M"]
    cluster.start("mariadbd", *options, *where, *quick)
    ask = ["mariadb", "--no-defaults", f"--socket={cluster.folder / 'sql.socket'}", "--user=root", "--execute"]
    cluster.wait_until(lambda: "1" in cluster.run(*ask, "SELECT 1", check=False), "the database")
    cluster.run(
        *ask,
        f"CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}'; GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1'",
    )


def _make_accounts(cluster: SlurmCluster) -> None:
    add = ["sacctmgr", "--immediate", "--quiet", "add"]
    cluster.run(*add, "cluster", NAME)
    cluster.run(*add, "account", "uni", "Cluster=" + NAME)
    for account in ("physics", "ml"):
        cluster.run(*add, "account", account, "parent=uni", "Cluster=" + NAME)
    for user, account in zip(USERS, ("physics", "physics", "ml", "ml"), strict=True):
        cluster.run(*add, "user", user, f"account={account}", "Cluster=" + NAME)
    cluster.run(*add, "user", USERS[0], "account=ml", "Cluster=" + NAME)


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text, encoding="utf-8")
