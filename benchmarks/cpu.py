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

    Living ones and those that have ended. Exact while no child is just ending.
    """
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat(entry)
        if fields is None:
            continue
        if int(entry.name) == parent:
            ticks += sum(map(int, fields[_USER : _CHILDREN_SYSTEM + 1]))
        elif int(fields[_PARENT]) == parent:
            ticks += int(fields[_USER]) + int(fields[_SYSTEM])
    return ticks / _TICKS_PER_SECOND


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
