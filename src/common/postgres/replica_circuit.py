"""Remembers that a replica did not answer, so that not every request waits for it again."""

import time
from collections.abc import Callable
from functools import cache
from threading import Lock

REST_SECONDS = 5.0
"""For how long a replica that did not answer is left alone."""


class Circuit:
    """Whether to ask a replica, as far as this process knows; for any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._rests_until: float | None = None

    def may_ask(self) -> bool:
        """Whether to ask it now; once it has rested one caller may, and the others after that."""
        with self._lock:
            if self._rests_until is None:
                return True
            if self._clock() < self._rests_until:
                return False
            self._rests_until = self._clock() + REST_SECONDS
            return True

    def note_answer(self) -> None:
        """It answered."""
        with self._lock:
            self._rests_until = None

    def note_silence(self) -> None:
        """It did not."""
        with self._lock:
            self._rests_until = self._clock() + REST_SECONDS


@cache
def circuit_of(address: str) -> Circuit:
    """This process's one, of the replica at this address, whichever driver asks it."""
    del address
    return Circuit()
