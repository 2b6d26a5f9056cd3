"""What the troubles are made with, and how one check is asked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from src.common.doctor.catalogue import named
from src.common.doctor.context import Context
from src.common.doctor.examination import Examined, examine
from src.common.settings import get_settings
from tests.models.right_rows import RIGHT
from tests.stripe.loop import Loop


@dataclass(frozen=True)
class System:
    """What a trouble is made with."""

    db: Session
    patch: pytest.MonkeyPatch
    folder: Path
    request: pytest.FixtureRequest

    def run(self, statement: str, **parameters: Any) -> None:
        """Run SQL; it is undone after the test."""
        self.db.execute(text(statement), parameters)
        self.db.commit()

    def add(self, model: Any, **values: Any) -> None:
        """Insert a row like any, with these values."""
        self.db.execute(insert(model).values(RIGHT.get(model, {}) | values))
        self.db.commit()

    def set(self, **variables: str) -> None:
        """Set variables of the environment."""
        for name, value in variables.items():
            self.patch.setenv(name, value)
        get_settings.cache_clear()

    @property
    def loop(self) -> Loop:
        """An offline Stripe."""
        loop: Loop = self.request.getfixturevalue("loop")
        get_settings.cache_clear()
        return loop


class Trouble(NamedTuple):
    """A trouble, and what its check answers."""

    name: str
    """The check's."""
    make: Callable[[System], object]
    status: str
    says: str
    """Words of what it has seen."""


def asked(name: str, api_url: str | None = None) -> Examined:
    """What one check answers."""
    context = Context(api_url)
    [found] = examine(named([name]), context)
    context.close()
    return found
