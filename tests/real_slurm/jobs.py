"""What users and administrators do to a real cluster within two minutes: everything that accounting gets wrong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.real_slurm.cluster import SlurmCluster

# The account and user of each kind of trouble, so that what Slurm counts in its own way can be told apart.
CALM = ("physics", "games")
SUSPENDED = ("ml", "games")
REQUEUED = ("physics", "man")
CARDS = ("ml", "lp")
RESIZED = ("ml", "news")
OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL")


@dataclass
class Jobs:
    """Jobs that were submitted, and what is done to them."""

    cluster: SlurmCluster
    numbers: list[str] = field(default_factory=list)

    def submit(self, who: tuple[str, str], *options: str, seconds: int) -> str:
        """Submit a job as somebody."""
        account, user = who
        number = self.cluster.submit(user, f"--account={account}", *options, seconds=seconds)
        self.numbers.append(number)
        return number

    def submit_all(self) -> dict[str, str]:
        """Submit one job of every kind; return those to which something is done later."""
        self.submit(CALM, "--ntasks=2", "--time=3", seconds=14)
        self.submit(CALM, "--job-name=line1\nline2|RUNNING|0", seconds=3)
        self.submit(CALM, "--array=0-3%2", seconds=4)
        self.submit(CALM, "--job-name=nothing", seconds=0)
        self.submit(CARDS, "--partition=gpu", "--gres=gpu:a100:2", "--ntasks=3", seconds=12)
        self.submit(CARDS, "--partition=gpu", "--gres=gpu:1", seconds=9)
        return {
            "suspend": self.submit(SUSPENDED, "--ntasks=3", seconds=14),
            "suspend cards": self.submit(SUSPENDED, "--partition=gpu", "--gres=gpu:a100:1", seconds=14),
            "requeue": self.submit(REQUEUED, "--ntasks=2", "--requeue", seconds=15),
            "cancel": self.submit(CARDS, "--ntasks=2", seconds=600),
            "never": self.submit(CARDS, "--begin=now+2hours", seconds=5),
            "resize": self.submit(RESIZED, "--nodes=2", "--no-kill", seconds=18),
        }

    def meddle(self, of: dict[str, str]) -> None:
        """Suspend, requeue, resize and cancel what runs."""
        control, cluster = self.cluster.control, self.cluster
        for kind in ("suspend", "suspend cards", "requeue", "cancel", "resize"):
            cluster.wait_for(of[kind], "RUNNING")
        time.sleep(3)
        control("suspend", of["suspend"])
        control("suspend", of["suspend cards"])
        control("requeue", of["requeue"])
        control("update", f"JobId={of['resize']}", "NumNodes=1")
        time.sleep(6)
        control("resume", of["suspend"])
        control("resume", of["suspend cards"])
        cluster.run("scancel", of["cancel"], of["never"])

    def fail_a_node(self) -> None:
        """Let a node fail under a job, and come back."""
        number = self.submit(REQUEUED, "--nodelist=cn1", "--no-requeue", seconds=300)
        self.cluster.wait_for(number, "RUNNING")
        time.sleep(4)
        self.cluster.control("update", "NodeName=cn1", "State=DOWN", "Reason=test")
        self.cluster.wait_for(number, "NODE_FAIL")
        # It may be back by itself as soon as its daemon registers again.
        back = ["scontrol", "update", "NodeName=cn1", "State=RESUME"]
        up = ["sinfo", "--noheader", "--nodes=cn1", "--partition=cpu", "--format=%t"]
        self.cluster.wait_until(
            lambda: not self.cluster.run(*back, check=False) and "down" not in self.cluster.run(*up),
            "a node that is back",
        )

    def wait_for_all(self) -> None:
        """Wait until every job is over."""
        queue = ["squeue", "--noheader", "--format=%i %T"]
        self.cluster.wait_until(lambda: not self.cluster.run(*queue).strip(), "an empty queue", seconds=240)
