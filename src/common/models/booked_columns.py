"""The types of `credits_balance` and `credits_version`: what `Session.merge` does to them.

`merge` copies every attribute of a copy onto the loaded object. A copy's balance is what there was
when it was loaded, and not what anybody wishes: only what its holder changed since counts, which
the copy's own history says, pickled or not.
"""

from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, MappedSQLExpression, Session

if TYPE_CHECKING:
    from src.common.models.user import User

logger = structlog.get_logger(__name__)

_BALANCE, _VERSION = "credits_balance", "credits_version"
_PICKLED_UNFLUSHED = "flashslides.credits.pickled_unflushed"
"""In a copy's `info`: the balance it was pickled with while its session was still to flush it."""


def note_unflushed(user: "User", pickled: dict[str, Any]) -> None:
    """A copy of a changed user: whether the change is the copy's to make, only time tells."""
    state: InstanceState[Any] = inspect(user)
    if state.session is not None and state.attrs[_BALANCE].history.deleted:
        pickled["info"] = {**state.info, _PICKLED_UNFLUSHED: state.dict[_BALANCE]}


class KeptVersion(MappedSQLExpression[int]):
    """Merged not at all where the row exists: the ledger alone counts its entries."""

    inherit_cache = True

    def merge(
        self,
        session: Session,
        source_state: InstanceState[Any],
        source_dict: dict[str, Any],
        dest_state: InstanceState[Any],
        dest_dict: dict[str, Any],
        load: bool,  # noqa: FBT001  SQLAlchemy's signature
        _recursive: Any,
        _resolve_conflict_map: Any,
    ) -> None:
        """As `MapperProperty.merge`, except for a row that exists."""
        if load and dest_state.has_identity and self.key in source_dict:
            self.merge_into_row(source_state, source_dict, dest_state, dest_dict)
            return
        super().merge(
            session,
            source_state,
            source_dict,
            dest_state,
            dest_dict,
            load,
            _recursive,
            _resolve_conflict_map,
        )

    def merge_into_row(
        self,
        source_state: InstanceState[Any],
        source_dict: dict[str, Any],
        dest_state: InstanceState[Any],
        dest_dict: dict[str, Any],
    ) -> None:
        """What the copy makes of the loaded object's value: nothing."""


class BookedBalance(KeptVersion):
    """Merged by adding the difference that the copy's holder made."""

    inherit_cache = True

    def merge_into_row(
        self,
        source_state: InstanceState[Any],
        source_dict: dict[str, Any],
        dest_state: InstanceState[Any],
        dest_dict: dict[str, Any],
    ) -> None:
        """Add the difference.

        A copy that was constructed has no history: its balance is left alone, and where it
        disagrees a warning says so.
        """
        history = source_state.attrs[self.key].history
        if not history.has_changes():
            return
        merged, given = dest_state.obj(), source_dict[self.key]
        shown = getattr(merged, self.key)
        if type(given) is not int:
            setattr(merged, self.key, given)  # the flush refuses it
        elif history.deleted:
            had = next(iter(history.deleted))
            if (shown, dest_dict.get(_VERSION)) != (had, source_dict.get(_VERSION)):
                # Something was booked since. What it was pickled with unflushed was not the
                # holder's to make: the session that had it then has made it, or has given it up.
                had = source_state.info.get(_PICKLED_UNFLUSHED, had)
            setattr(merged, self.key, shown + given - had)
        elif given != shown:
            logger.warning(
                "merge() leaves the balance of a User alone that was not loaded but constructed: "
                "nobody knows what was changed. Load the user and add to it",
                user_id=str(source_dict.get("user_id")),
            )
