"""What may be a part of `users.preferences`: what JSON has, and every part of it is watched."""

import collections
import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models import User
from tests.models.examples import a_user


class Point(NamedTuple):
    """A tuple by another name."""

    x: dict[str, int]
    y: int


Put = Callable[[dict[str, Any], Any], object]


def put_slice(preferences: dict[str, Any], part: Any) -> None:
    """As an item of a list, by slice."""
    preferences["list"] = [0, 0]
    preferences["list"][0:1] = [part]


def put_generated(preferences: dict[str, Any], part: Any) -> None:
    """The same out of a generator."""
    preferences["list"] = [0, 0]
    preferences["list"][0:1] = (each for each in [part])


def put_union(preferences: dict[str, Any], part: Any) -> None:
    """By `|=`."""
    preferences |= {"part": part}


def put_mapping(preferences: dict[str, Any], part: Any) -> None:
    """By `update` with a mapping that is no dict."""
    preferences.update(MappingProxyType({"part": part}))


WAYS: dict[str, Put] = {
    "item": lambda it, part: it.__setitem__("part", part),
    "deep": lambda it, part: it.__setitem__("a", {"b": [{"c": part}]}),
    "setdefault": lambda it, part: it.setdefault("part", part),
    "update": lambda it, part: it.update(part=part),
    "update by a name of its own": lambda it, part: it.update(source=part),
    "update by mapping": put_mapping,
    "|=": put_union,
    "slice": put_slice,
    "generated slice": put_generated,
    "append": lambda it, part: it.setdefault("list", []).append(part),
    "extend": lambda it, part: it.setdefault("list", []).extend((part,)),
}
ways = pytest.mark.parametrize("way", WAYS)


def saved(db: Session, preferences: Any) -> tuple[User, dict[str, Any]]:
    """A committed user with these preferences."""
    user = a_user(preferences=preferences)
    db.add(user)
    db.commit()
    return user, user.preferences


def stored(db: Session, user: User) -> Any:
    """What the database has after a commit."""
    db.commit()
    return db.scalar(select(User.preferences).where(User.user_id == user.user_id))


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def change(value: Any) -> bool:
    """Change the innermost dict."""
    is_dict = hasattr(value, "values")
    parts: list[Any] = list(value.values() if is_dict else value)
    if any(change(each) for each in parts if not isinstance(each, int)):
        return True
    if is_dict:
        value["changed"] = True
    return is_dict


TUPLES: list[Any] = [({"x": 1}, 2), ((0, {"x": 1}),), Point({"x": 1}, 2), [({"x": 1},)]]


@ways
@pytest.mark.parametrize("part", TUPLES[1:3], ids=repr)
def test_a_tuple_is_watched_as_a_list(db: Session, way: str, part: Any) -> None:
    """It becomes one when it is put in, as it would on its way through JSON."""
    user, preferences = saved(db, {})
    WAYS[way](preferences, deepcopy(part))
    db.commit()
    shown = plain(preferences)
    assert stored(db, user) == preferences == shown
    assert change(preferences)
    assert preferences != shown
    assert stored(db, user) == plain(preferences)


@pytest.mark.parametrize("part", TUPLES, ids=repr)
def test_a_tuple_in_assigned_preferences_is_watched(db: Session, part: Any) -> None:
    """Of a new user, and assigned to one that is loaded."""
    user, preferences = saved(db, {"part": deepcopy(part)})
    assert change(preferences)
    assert stored(db, user) == plain(preferences)
    user.preferences = {"other": deepcopy(part)}
    db.commit()
    assert change(user.preferences)
    assert stored(db, user) == plain(user.preferences)
    assert "changed" in str(user.preferences)


WRONG: list[Any] = [
    {1, 2},
    frozenset({1}),
    b"bytes",
    bytearray(b"bytes"),
    range(3),
    collections.deque([1]),
    MappingProxyType({"a": 1}),
    {"a": 1}.keys(),
    ({1},),
]


@ways
@pytest.mark.parametrize("part", WRONG, ids=lambda part: type(part).__name__)
def test_what_json_has_no_word_for_is_refused(way: str, part: Any) -> None:
    """At once, with its type's name, and not by the flush; nothing else has changed."""
    user = a_user(preferences={"a": {"b": 1}})
    name = "set" if isinstance(part, tuple) else type(part).__name__
    with pytest.raises(ValueError, match=name):
        WAYS[way](user.preferences, part)
    assert "part" not in user.preferences


@pytest.mark.parametrize("part", WRONG, ids=lambda part: type(part).__name__)
def test_preferences_with_such_a_part_are_refused(part: Any) -> None:
    """However deep it lies."""
    name = "set" if isinstance(part, tuple) else type(part).__name__
    with pytest.raises(ValueError, match=name):
        a_user(preferences={"a": [{"b": part}]})


def test_other_dicts_are_dicts(db: Session) -> None:
    """`OrderedDict` and `defaultdict` are watched like any."""
    inner: collections.defaultdict[str, dict[str, int]] = collections.defaultdict(dict)
    inner["b"] = {}
    user, preferences = saved(db, collections.OrderedDict(a=inner))
    preferences["a"]["b"]["c"] = 1
    assert stored(db, user) == {"a": {"b": {"c": 1}}}


def pickled(user: User) -> User:
    """A copy as a cache keeps it."""
    copy = pickle.loads(pickle.dumps(user))  # noqa: S301  just pickled here
    assert isinstance(copy, User)
    return copy


COPIES: list[Callable[[User], User]] = [deepcopy, pickled]


@pytest.mark.parametrize("copied", COPIES, ids=lambda copied: copied.__name__)
def test_a_copied_user_s_preferences_are_watched(
    db: Session, copied: Callable[[User], User]
) -> None:
    """Pickled and merged, a change in what was a tuple is saved; the original has its own."""
    user, preferences = saved(db, {"a": ({"b": 1},)})
    copy = copied(user)
    copy.preferences["a"][0]["b"] = 2
    assert preferences == {"a": [{"b": 1}]}
    db.merge(copy)
    assert stored(db, user) == {"a": [{"b": 2}]}


def test_a_list_multiplied_in_place_is_watched(db: Session) -> None:
    """Each item as often as it is there."""
    user, preferences = saved(db, {"list": [({"x": 1},)]})
    preferences["list"] *= 2
    db.commit()
    preferences["list"][1][0]["x"] = 2
    assert stored(db, user) == plain(preferences)
