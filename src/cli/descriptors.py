"""Limits connections, so that file descriptors are left for what serves them.

libuv closes a connection for which there is no descriptor, and tells nobody.
"""

import math
import resource
import time

import structlog

logger = structlog.get_logger(__name__)

RESERVED = 64
"""For connections to PostgreSQL and to Stripe; at most a quarter of all."""
LOG_INTERVAL_SECONDS = 10


class DescriptorReserve:
    """Says which connections are too many for the process, and logs that seldom."""

    def __init__(self) -> None:
        self._refused = 0
        self._logged_at = -math.inf

    def refuses(self, descriptor: int) -> bool:
        """Whether a new connection has taken one of the reserved.

        The system hands out the lowest number that is free: all below it are in use.
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY or descriptor < limit - min(RESERVED, limit // 4):
            return False
        self._refused += 1
        if time.monotonic() >= self._logged_at + LOG_INTERVAL_SECONDS:
            logger.warning(
                "More connections than file descriptors: closed unanswered",
                connections=self._refused,
                limit=limit,
            )
            self._refused, self._logged_at = 0, time.monotonic()
        return True
