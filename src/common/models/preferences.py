"""The type of `users.preferences`: a JSON object whose changes are saved and whose queries hold.

Three things the document relies on and plain JSONB does not give:

- `user.preferences["a"]["b"] = c` is noticed, at any depth, and saved by the next commit;
- `User.preferences["marketing_consent"].astext.cast(Boolean)` over all users does not fail
  because one of them has a value there that is no boolean; that user just does not match;
- NULL and `{}` both mean "none yet".
"""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, func, null
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import case
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.types import TypeEngine, to_instance

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


Preferences: TypeEngine[dict[str, Any] | None] = TrackedJsonObject.as_mutable(
    PreferencesJSONB(none_as_null=True)
)
