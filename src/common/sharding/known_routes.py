"""What this process has looked up: whose schema is which. A user's group never changes."""

import uuid
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

USERS_MAX = 100_000
"""So many are remembered: some 20 MB."""


class KnownRoutes:
    """Users and their groups; those who were asked for longest ago are forgotten first.

    Only what is committed belongs here.
    """

    def __init__(self, users_max: int = USERS_MAX) -> None:
        self._users_max = users_max
        self._groups: OrderedDict[uuid.UUID, str] = OrderedDict()
        self._lock = Lock()

    def get(self, user_id: uuid.UUID) -> str | None:
        """The user's group; None where nobody has asked, or it was forgotten."""
        with self._lock:
            group = self._groups.get(user_id)
            if group is not None:
                self._groups.move_to_end(user_id)
            return group

    def note(self, found: Mapping[uuid.UUID, str]) -> None:
        """Remember these."""
        with self._lock:
            self._groups.update(found)
            while len(self._groups) > self._users_max:
                self._groups.popitem(last=False)
