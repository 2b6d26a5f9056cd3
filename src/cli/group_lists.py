"""Lists of everybody's, read from one group of users after the other and merged (decision 0066)."""

from typing import TYPE_CHECKING, Any, TypeVar

from src.cli.whose import is_sharding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from src.common.postgres.lagging_reads import Answered, MayLag
    from src.common.replicas import Reader

T = TypeVar("T")


def read_everybodys(
    reader: "Reader",
    reading: "MayLag[..., T]",
    *args: Any,
    merge: "Callable[[Sequence[T]], T]",
    **kwargs: Any,
) -> "Answered[T]":
    """What the reading finds of all users; the database is in reach.

    Of several answers the one that is of the longest ago says who answered.
    """
    if not is_sharding():
        return reader.read(reading, *args, **kwargs)
    from src.common.postgres.lagging_reads import Answered, oldest
    from src.common.postgres.routes import routed_to_schema
    from src.common.routing import all_groups

    answers: list[Answered[T]] = []
    for group in all_groups():
        with routed_to_schema(group):
            answers.append(reader.read(reading, *args, **kwargs))
    return Answered(
        merge([each.value for each in answers]), oldest([each.read_from for each in answers])
    )
