"""Ends a server process when the process that started it is gone."""

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Have SIGTERM end this process once its parent is gone, however that ended."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent's end", daemon=True).start()
