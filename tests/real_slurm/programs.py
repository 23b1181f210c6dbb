"""The programs of a real Slurm: found where they are, installed where that is allowed, else named as missing."""

from __future__ import annotations

import os
import shutil
import subprocess

NEEDED = (
    *("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "slurmrestd"),
    *("sacct", "sacctmgr", "sreport"),
)
PACKAGES = ("slurm-wlm", "slurmdbd", "slurmrestd", "mariadb-server", "munge")
PLACES = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
INSTALL_SECONDS = 900


class NoSlurmError(RuntimeError):
    """There is no Slurm here and none can be installed; the message says why."""


def missing() -> list[str]:
    """Return the programs that are not here."""
    return [name for name in NEEDED if shutil.which(name, path=PLACES) is None]


def ensure_programs() -> None:
    """Install Debian's packages where programs are missing and it may be done, or say why it cannot."""
    if os.name != "posix" or os.geteuid() != 0:
        raise NoSlurmError("daemons that start jobs as other users need root")
    if not missing():
        return
    if shutil.which("apt-get") is None:
        raise NoSlurmError(f"no {', '.join(missing())} here, and no apt-get to install them with")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Nothing of it is to run as a service of the system.
    options = ["-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", *options, *PACKAGES]):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=INSTALL_SECONDS, check=False)
        if done.returncode:
            raise NoSlurmError(f"{' '.join(command[:2])} failed: {done.stderr.decode(errors='replace')[-300:]}")
    if missing():
        raise NoSlurmError(f"{', '.join(PACKAGES)} are installed, and yet there is no {', '.join(missing())}")
