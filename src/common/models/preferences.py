"""The type of `users.preferences`: a JSON object whose changes are noticed and saved.

Four things the document and its readers rely on and plain JSONB does not give:

- `user.preferences["a"]["b"] = c` is noticed, at any depth, and saved by the next commit;
- `User.preferences["marketing_consent"].astext.cast(Boolean)` over all users does not fail
  because one of them has a value there that is no boolean; that user just does not match;
- NULL and `{}` both mean "none yet";
- `user.preferences` is a dict, whatever the row has. A NULL stays NULL until something is written.
"""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Dialect, func, inspect, null
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql import case
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.types import TypeDecorator, TypeEngine, to_instance

from src.common.models.tracked_json import TrackedJsonObject

# What PostgreSQL reads as a boolean, any unambiguous prefix included (manual, "Boolean Type").
BOOLEAN_WORDS = (
    *("t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"),
    *("f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"),
)


class _ForgivingText(BinaryExpression[str]):
    """A preference as text, whose cast to boolean is NULL where the text is none."""

    inherit_cache = True

    def cast(self, type_: Any) -> ColumnElement[Any]:  # type: ignore[override]
        """As `ColumnElement.cast`, except that a cast to boolean never fails."""
        cast = super().cast(type_)
        if not isinstance(to_instance(type_), Boolean):
            return cast
        readable = func.lower(func.btrim(self)).in_(BOOLEAN_WORDS)
        return case((readable, cast), else_=null())


class PreferencesJSONB(JSONB[Any]):
    """JSONB whose `["key"].astext.cast(Boolean)` reads odd values as unknown."""

    class Comparator(JSONB.Comparator[Any]):
        """Comparison operations of a preference."""

        @property
        def astext(self) -> ColumnElement[str]:
            """As JSONB's, with a forgiving cast to boolean."""
            text = super().astext
            if not isinstance(text, BinaryExpression):
                return text
            return _ForgivingText(text.left, text.right, text.operator, type_=text.type)

    comparator_factory = Comparator


class StoredPreferences(TypeDecorator[dict[str, Any]]):
    """Writes what stands for NULL as NULL."""

    impl = PreferencesJSONB
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> Any:
        """The value to store."""
        del dialect
        return None if _is_null(value) else value

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether nothing need be written: assigning `{}` where NULL is stored is a change."""
        return bool(x == y) and _is_null(x) == _is_null(y)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """As JSONB's, so that `["key"]` compares text with text."""
        return self.impl_instance.coerce_compared_value(op, value)


Preferences: TypeEngine[dict[str, Any]] = TrackedJsonObject.as_mutable(
    StoredPreferences(none_as_null=True)
)


def begin_empty(user: Any, _none: None, attributes: dict[str, Any]) -> TrackedJsonObject:
    """Event "init_scalar": a new user's preferences are looked at before anything was assigned.

    Not before they are looked at: `merge` of a user constructed in part replaces nothing by them.
    """
    attributes["preferences"] = empty = TrackedJsonObject()
    empty.belong_to(inspect(user), "preferences")
    return empty


def read_null_as_empty(user: Any, *_context: Any) -> None:
    """Events "load" and "refresh": an empty dict that stands for the row's NULL."""
    state = inspect(user)
    if "preferences" in state.dict and state.dict["preferences"] is None:
        empty = TrackedJsonObject.null()
        set_committed_value(user, "preferences", empty)
        empty.belong_to(state, "preferences")


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, TrackedJsonObject) and value.is_null)
