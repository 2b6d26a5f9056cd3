"""How many spends a second the engine does for 256 callers: its process prints one number.

python -m benchmarks.failover.engine_rate SECONDS USER_ID…      (started by the harness)
"""

import asyncio
import itertools
import sys
import time
import uuid

from src.common.credits.engine.engine import Engine
from src.common.settings import get_settings

CALLERS = 256
_WARM_UP_SECONDS = 1.0


async def main(seconds: float, user_ids: list[uuid.UUID]) -> float:
    """Spend as fast as may be; operations a second once it is warm."""
    users = itertools.cycle(user_ids)
    done = 0

    async def call(engine: Engine, until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await engine.spend(next(users), 1, key=f"rate:{uuid.uuid4().hex}")
            done += 1

    async with Engine.from_settings(get_settings()) as engine:
        begin = time.perf_counter() + _WARM_UP_SECONDS
        await asyncio.gather(*(call(engine, begin) for _ in range(CALLERS)))
        done = 0
        begin = time.perf_counter()
        await asyncio.gather(*(call(engine, begin + seconds) for _ in range(CALLERS)))
        return done / (time.perf_counter() - begin)


if __name__ == "__main__":
    print(asyncio.run(main(float(sys.argv[1]), [uuid.UUID(each) for each in sys.argv[2:]])))
