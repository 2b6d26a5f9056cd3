"""Errors go from one process to another as they are: `verify --jobs`, pools of the caller's own."""

import pickle
from collections.abc import Iterator

import pytest

from src.common import exceptions
from src.common.credits.domain.errors import InsufficientCredits
from src.common.exceptions import DatabaseBusy, ExceptionWithErrorType, SettingsError
from src.common.postgres.errors import RetryableDatabaseError

BUILT_OTHERWISE = (
    DatabaseBusy("waiting"),
    SettingsError("DATABASE_HOST is missing"),
    RetryableDatabaseError("40001", None, "conflict"),
    InsufficientCredits(required=5, available=3),
)


def errors() -> Iterator[ExceptionWithErrorType]:
    """One of each: those with an `__init__` of their own and those without."""
    yield from BUILT_OTHERWISE
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, ExceptionWithErrorType):
            if "__init__" in vars(kind) and kind is not ExceptionWithErrorType:
                assert kind in {type(each) for each in BUILT_OTHERWISE}
            else:
                yield kind("Something", "SOME_TYPE", field="amount")


@pytest.mark.parametrize("error", list(errors()), ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was_sent(error: ExceptionWithErrorType) -> None:
    """Its sentence, type, kind and details."""
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert type(arrived) is type(error)
    for name in ("message", "error_type", "kind", "details"):
        assert getattr(arrived, name) == getattr(error, name)
    assert str(arrived) == str(error)
