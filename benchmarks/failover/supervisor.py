"""Runs a program, and is the parent of whatever it leaves: python supervisor.py COMMAND…

Patroni leaves its server to the system, and waits for it to be gone. Somebody has to collect it.
It ends once everything has ended, and passes SIGTERM on to the program. Standard library alone: it
runs by a Python that has nothing else.
"""

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> None:
    """Start it, and collect until nobody is left."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program = subprocess.Popen(command)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        program.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
