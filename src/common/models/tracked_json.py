"""JSON objects that notice their own changes, at any depth.

`sqlalchemy-json` misses some of list's methods, lets a part of one row's value be shared with
another row's, does not look into tuples, and answers a value of the wrong type with an
AttributeError.
"""

from collections.abc import Collection
from typing import Any, Self, SupportsIndex, cast

from sqlalchemy.orm import InstanceState
from sqlalchemy_json import NestedMutableDict
from sqlalchemy_json.track import TrackedDict, TrackedList, TrackedObject


class _Part(TrackedObject):
    """Something inside a tracked value, or the value itself."""

    @classmethod
    def convert(cls, obj: object, parent: object) -> Any:
        """What to store for `obj` inside `parent`: a tracked copy, unless it belongs there already.

        A part of another row's value is copied, so that a change of one is not booked on the other.
        A tuple becomes a list, as on its way through JSON.

        Raises:
            ValueError: JSON has nothing like it.
        """
        if isinstance(obj, TrackedObject) and obj.parent is parent:
            return obj
        part: TrackedObject
        if isinstance(obj, dict):
            part = TrackedJsonDict(cast("dict[str, Any]", obj))
        elif isinstance(obj, list | tuple):
            part = TrackedJsonList(cast("Collection[object]", obj))
        elif isinstance(obj, Collection) and not isinstance(obj, str):
            name = type(cast("object", obj)).__name__
            raise ValueError(f"JSON has dicts and lists, and no {name}")  # noqa: TRY004  as coerce
        else:
            return obj
        part.parent = parent
        return part


class TrackedJsonDict(_Part, TrackedDict):
    """A JSON object inside a tracked one."""

    def update(self, other: Any = (), /, **named: Any) -> None:
        """As `dict.update`, with any mapping, pairs or names."""
        super().update(dict(other, **named))

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]  # as dict's, pairs too
        self.update(other)
        return self


class TrackedJsonList(_Part, TrackedList):
    """A JSON array inside a tracked object."""

    def __setitem__(self, index: "SupportsIndex | slice[Any, Any, Any]", value: Any) -> None:
        if isinstance(index, slice):
            parts = [self.convert(each, self) for each in value]
            self.changed()
            list.__setitem__(self, index, parts)
        else:
            super().__setitem__(index, value)

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """As `list.insert`."""
        part = self.convert(value, self)
        self.changed()
        super().insert(index, part)

    def pop(self, index: SupportsIndex = -1) -> Any:
        """As `list.pop`."""
        return super().pop(index)

    def clear(self) -> None:
        """As `list.clear`."""
        self.changed()
        super().clear()

    def reverse(self) -> None:
        """As `list.reverse`."""
        self.changed()
        super().reverse()

    def __iadd__(self, values: Any) -> Self:  # type: ignore[misc]  # list's own mismatch
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> Self:
        self.changed()
        super().__imul__(times)
        return self


class TrackedJsonObject(TrackedJsonDict, NestedMutableDict):
    """The value of a column: a JSON object whose every change marks its row as changed."""

    stands_for_null = False

    @classmethod
    def null(cls) -> Self:
        """An empty object in place of NULL, which is stored as such until something is put in."""
        empty = cls()
        empty.stands_for_null = True
        return empty

    def belong_to(self, row: InstanceState[Any], key: str) -> None:
        """Mark `row` as changed with every change, as the value of its attribute `key`."""
        self._parents[row] = key  # as Mutable's own listeners do

    @property
    def is_null(self) -> bool:
        """Whether NULL is what to store."""
        return self.stands_for_null and not self

    @classmethod
    def coerce(cls, key: str, value: object) -> "TrackedJsonObject":
        """The tracked form of what is assigned to column `key`.

        Raises:
            ValueError: it is neither None nor a JSON object.
        """
        if value is None:
            return cls.null()
        if isinstance(value, TrackedJsonObject):
            return value
        if isinstance(value, dict):
            return cls(cast("dict[str, Any]", value))
        raise ValueError(f"{key} takes a dict or None, not {type(value).__name__}")
