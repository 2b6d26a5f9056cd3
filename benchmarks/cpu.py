"""CPU time from Linux's /proc: of a server's processes, and of the machine as a whole."""

import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Places in /proc/<pid>/stat after the program's name, which may hold spaces (proc_pid_stat(5)).
_PARENT, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 11, 12, 13, 14
# Places in the first line of /proc/stat; guest time is part of user time, steal is not ours.
_IDLE_AND_WAITING = {3, 4}
_COUNTED = 7


def family_seconds(parent: int) -> float:
    """Return the CPU time so far of a server: its first process, and that one's children.

    Living ones and those that have ended. A child that ends while it is counted would be missed, or
    counted twice: the kernel adds its time to its parent's.
    """
    ended, living = _family(parent)
    while True:
        ended_before, pids_before = ended, living.keys()
        ended, living = _family(parent)
        if (ended, living.keys()) == (ended_before, pids_before):
            return (ended + sum(living.values())) / _TICKS_PER_SECOND


def _family(parent: int) -> tuple[int, dict[int, int]]:
    """The ticks of the children that have ended, and of all others by their numbers."""
    ended, living = 0, dict[int, int]()
    for entry in Path("/proc").iterdir():
        fields = _stat(entry) if entry.name.isdigit() else None
        if fields is None:
            continue
        pid = int(entry.name)
        if pid == parent:
            ended = int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])
        if parent in {pid, int(fields[_PARENT])}:
            living[pid] = int(fields[_USER]) + int(fields[_SYSTEM])
    return ended, living


def machine_seconds() -> float:
    """Return the CPU time of everything on this machine so far, all cores added."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        ticks = [int(field) for field in file.readline().split()[1 : 1 + _COUNTED]]
    busy = sum(value for place, value in enumerate(ticks) if place not in _IDLE_AND_WAITING)
    return busy / _TICKS_PER_SECOND


def _stat(process: Path) -> list[str] | None:
    try:
        return (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended meanwhile
