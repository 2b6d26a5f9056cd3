"""A worker's process: settles what is stored when it is told to, and says how long that took.

python -m benchmarks.backlog      (started by benchmarks/contestants/backlog.py)
"""

import asyncio
import gc
import json
import resource
import sys
import time

from src.cli.work import settle_events
from src.common.observability import configure_logging
from src.common.settings import get_settings


def main() -> None:
    """Wait for the word."""
    configure_logging(get_settings())
    gc.freeze()
    print("ready", flush=True)
    if not sys.stdin.readline():  # the runner has ended
        return
    before, started = _cpu_seconds(), time.perf_counter()
    asyncio.run(settle_events())
    told = {
        "elapsed_seconds": time.perf_counter() - started,
        "cpu_seconds": _cpu_seconds() - before,
    }
    print(json.dumps(told), flush=True)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
