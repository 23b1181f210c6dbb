"""Has slurmdbd roll up usage now, hours that are not over included, as no command of Slurm's does.

python rolling.py BEGIN END (seconds since 1970)
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

LIBRARIES = ("/usr/lib/*/slurm-wlm/libslurmfull.so", "/usr/lib/*/slurm/libslurmfull.so")


def library() -> Path | None:
    """Return Slurm's library, which its own commands use."""
    return next((found for pattern in LIBRARIES for found in Path("/").glob(pattern[1:])), None)


def roll_up(begin: int, end: int) -> int:
    """Ask slurmdbd to roll up all hours from one second to another; return 0 if it did."""
    found = library()
    if found is None:
        return 1
    slurm = ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
    slurm.slurm_init(None)
    connect, roll = slurm.slurmdb_connection_get, slurm.slurmdb_usage_roll
    connect.restype, connect.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    roll.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_uint16, ctypes.c_void_p]
    connection = connect(ctypes.byref(ctypes.c_uint16(0)))
    return int(roll(connection, begin, end, 0, ctypes.byref(ctypes.c_void_p(0))))


if __name__ == "__main__":
    sys.exit(roll_up(int(sys.argv[1]), int(sys.argv[2])))
