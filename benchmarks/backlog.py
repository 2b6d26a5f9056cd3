"""A worker's process: settles what is stored when it is told to, and says how long that took.

python benchmarks/backlog.py      (started by benchmarks/contestants/backlog.py)

It imports nothing but `src`: that may be another revision's.
"""

import asyncio
import gc
import json
import resource
import sys
import time
from contextlib import suppress

from src.cli.work import settle_events
from src.common.observability import configure_logging
from src.common.settings import get_settings

_SECONDS_MAX = 60


def main() -> None:
    """Wait for the word."""
    configure_logging(get_settings())
    gc.freeze()
    print("ready", flush=True)
    if not sys.stdin.readline():  # the runner has ended
        return
    before, started = _cpu_seconds(), time.perf_counter()
    asyncio.run(_settle())
    told = {
        "elapsed_seconds": time.perf_counter() - started,
        "cpu_seconds": _cpu_seconds() - before,
    }
    print(json.dumps(told), flush=True)


async def _settle() -> None:
    """Settle all of them; a worker that is too slow for that is stopped as any worker is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS_MAX):
            await settle_events()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
