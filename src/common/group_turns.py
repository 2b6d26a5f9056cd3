"""Which group of users the worker's work takes next: the one it was begun with longest ago.

Nobody has a group to itself: what workers do they may do at once. So a worker that is killed
leaves nothing locked. On the caller's open session; never commits.
"""

from typing import NamedTuple

from sqlalchemy import and_, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.models.group_turn import GroupTurn
from src.common.models.user_group import UserGroup


class Turn(NamedTuple):
    """A group, and how many groups there are."""

    schema: str
    groups: int


def begin_turn(session: Session, work: str) -> Turn | None:
    """Note that this kind of work begins with the next group; None where there is no group.

    Of two workers at the same moment both may get the same one.
    """
    of_work = and_(GroupTurn.schema == UserGroup.schema, GroupTurn.work == work)
    following = session.execute(
        select(UserGroup.schema, func.count().over().label("groups"))
        .outerjoin(GroupTurn, of_work)
        .order_by(GroupTurn.began_at.nulls_first(), UserGroup.schema)
        .limit(1)
    ).one_or_none()
    if following is None:
        return None
    noted = insert(GroupTurn).values(
        work=work, schema=following.schema, began_at=func.clock_timestamp()
    )
    session.execute(
        noted.on_conflict_do_update(
            index_elements=[GroupTurn.work, GroupTurn.schema],
            set_={"began_at": noted.excluded.began_at},
        )
    )
    return Turn(*following)
