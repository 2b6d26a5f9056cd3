"""Changes of `users.preferences` in place are saved: every changing method, at every depth."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from src.common.models import User
from tests.models.examples import a_user

Change = Callable[[Any], object]
BEFORE: dict[str, Any] = {"a": 1, "b": {"c": 2}}
ITEMS: list[Any] = [3, 1, {"d": 2}, [4]]


def item_deleted(container: Any, key: Any) -> None:
    """`del container[key]`."""
    del container[key]


def united(container: dict[str, Any], other: Any) -> None:
    """`container |= other`."""
    container |= other


def extended(container: list[Any], other: Any) -> None:
    """`container += other`."""
    container += other


def repeated(container: list[Any], times: int) -> None:
    """`container *= times`."""
    container *= times


def set_(container: Any, key: Any, value: Any) -> None:
    """`container[key] = value`."""
    container[key] = value


DICT_CHANGES: dict[str, Change] = {
    "set": lambda it: set_(it, "new", 1),
    "set over": lambda it: set_(it, "a", 5),
    "del": lambda it: item_deleted(it, "a"),
    "update": lambda it: it.update({"new": {"deep": 1}}),
    "update by name": lambda it: it.update(new=1),
    "update by pairs": lambda it: it.update([("new", 1)]),
    "pop": lambda it: it.pop("a"),
    "popitem": lambda it: it.popitem(),
    "setdefault": lambda it: it.setdefault("new", []),
    "|=": lambda it: united(it, {"new": 1}),
    "|= pairs": lambda it: united(it, [("new", 1)]),
    "clear": lambda it: it.clear(),
}
LIST_CHANGES: dict[str, Change] = {
    "set": lambda it: set_(it, 0, 9),
    "set slice": lambda it: set_(it, slice(0, 2), [9, 8, 7]),
    "del": lambda it: item_deleted(it, 0),
    "del slice": lambda it: item_deleted(it, slice(0, 2)),
    "append": lambda it: it.append({"new": 1}),
    "extend": lambda it: it.extend([5, 6]),
    "insert": lambda it: it.insert(1, {"new": 1}),
    "+=": lambda it: extended(it, [5, {"new": 1}]),
    "*=": lambda it: repeated(it, 2),
    "pop": lambda it: it.pop(),
    "pop first": lambda it: it.pop(0),
    "remove": lambda it: it.remove(1),
    "sort": lambda it: it.sort(key=str),
    "sort backwards": lambda it: it.sort(key=str, reverse=True),
    "reverse": lambda it: it.reverse(),
    "clear": lambda it: it.clear(),
}
DICT_ADDITIONS: dict[str, Change] = {
    "set": lambda it: set_(it, "new", {"x": {}}),
    "update": lambda it: it.update(new={"x": {}}),
    "setdefault": lambda it: it.setdefault("new", {"x": {}}),
    "|=": lambda it: united(it, {"new": {"x": {}}}),
    "|= pairs": lambda it: united(it, [("new", {"x": {}})]),
}
LIST_ADDITIONS: dict[str, Change] = {
    "append": lambda it: it.append({}),
    "insert": lambda it: it.insert(0, {}),
    "extend": lambda it: it.extend([{}]),
    "+=": lambda it: extended(it, [{}]),
    "slice": lambda it: set_(it, slice(0, 0), [{}]),
}
WAYS_IN: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "on top": (lambda it: it, lambda it: it),
    "in a dict": (lambda it: {"x": it}, lambda it: it["x"]),
    "in a list": (lambda it: {"x": [0, it]}, lambda it: it["x"][1]),
    "three levels down": (lambda it: {"x": [{"y": it}]}, lambda it: it["x"][0]["y"]),
}
DEEP = [name for name in WAYS_IN if name != "on top"]


def saved(db: Session, preferences: dict[str, Any] | None) -> User:
    """A committed user with these preferences."""
    user = a_user(preferences=deepcopy(preferences))
    db.add(user)
    db.commit()
    return user


def assign_none(user: Any) -> None:
    """`user.preferences = None`, which is not of its type: code of before it was one does so."""
    user.preferences = None


def stored(db: Session, user: User) -> object:
    """What the database has after a commit."""
    db.commit()
    return db.scalar(select(User.preferences).where(User.user_id == user.user_id))


def check_that_it_is_saved(db: Session, container: object, way_in: str, change: Change) -> None:
    """Make the change in place and in a plain copy; the database must have the plain copy."""
    wrap, reach = WAYS_IN[way_in]
    user = saved(db, wrap(container))
    expected = wrap(deepcopy(container))
    change(reach(expected))
    assert expected != wrap(container), "this changes nothing"
    change(reach(user.preferences))
    assert stored(db, user) == expected


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize("change", DICT_CHANGES)
def test_every_change_of_a_dict_is_saved(db: Session, change: str, way_in: str) -> None:
    """What a method changes in a dict, however deep it lies, the next commit saves."""
    check_that_it_is_saved(db, BEFORE, way_in, DICT_CHANGES[change])


@pytest.mark.parametrize("way_in", DEEP)
@pytest.mark.parametrize("change", LIST_CHANGES)
def test_every_change_of_a_list_is_saved(db: Session, change: str, way_in: str) -> None:
    """What a method changes in a list, however deep it lies, the next commit saves."""
    check_that_it_is_saved(db, ITEMS, way_in, LIST_CHANGES[change])


@pytest.mark.parametrize("put", DICT_ADDITIONS)
def test_what_was_put_into_a_dict_is_watched_too(db: Session, put: str) -> None:
    """A dict that became a part of the preferences is saved when it changes later."""
    user = saved(db, {})
    DICT_ADDITIONS[put](user.preferences)
    db.commit()
    user.preferences["new"]["x"]["y"] = 1
    assert stored(db, user) == {"new": {"x": {"y": 1}}}


@pytest.mark.parametrize("put", LIST_ADDITIONS)
def test_what_was_put_into_a_list_is_watched_too(db: Session, put: str) -> None:
    """A dict that became an item of a list is saved when it changes later."""
    user = saved(db, {"list": []})
    LIST_ADDITIONS[put](user.preferences["list"])
    db.commit()
    user.preferences["list"][0]["y"] = 1
    assert stored(db, user) == {"list": [{"y": 1}]}


def test_a_part_of_another_user_s_preferences_is_a_copy(db: Session) -> None:
    """What is taken over from somebody belongs to both, each their own."""
    giver, taker = saved(db, {"x": {"y": [1]}}), saved(db, {})
    taker.preferences["x"] = giver.preferences["x"]
    db.commit()
    taker.preferences["x"]["y"].append(2)
    assert stored(db, taker) == {"x": {"y": [1, 2]}}
    assert stored(db, giver) == {"x": {"y": [1]}}


def test_a_part_taken_out_and_put_back_is_still_watched(db: Session) -> None:
    """What was put back where it came from may be changed through the old name."""
    user = saved(db, {"x": {"y": 1}})
    part = user.preferences["x"]
    user.preferences["x"] = part
    user.preferences = user.preferences or {}
    part["y"] = 2
    assert stored(db, user) == {"x": {"y": 2}}


def test_preferences_can_be_replaced_and_removed(db: Session) -> None:
    """Assigning a dict replaces all of them, assigning None stores NULL."""
    user = saved(db, {"a": 1})
    user.preferences = {"b": {"c": 1}}
    assert stored(db, user) == {"b": {"c": 1}}
    assign_none(user)
    assert stored(db, user) is None


def test_a_rolled_back_change_is_undone(db: Session) -> None:
    """A change in place that was not committed is not there any more."""
    user = saved(db, {"a": {"b": 1}})
    user.preferences["a"]["b"] = 2
    db.rollback()
    assert stored(db, user) == {"a": {"b": 1}}
    assert user.preferences == {"a": {"b": 1}}


def test_reading_changes_nothing(db: Session) -> None:
    """Looking at preferences makes no UPDATE."""
    user = saved(db, {"a": {"b": [1]}})
    assert user.preferences.get("a") == {"b": [1]}
    assert list(user.preferences["a"]["b"]) == [1]
    assert user.preferences.setdefault("a", {}) == {"b": [1]}
    assert user not in db.dirty


@pytest.mark.parametrize("wrong", ["text", 17, True], ids=repr)
def test_what_is_no_json_object_is_refused_at_once(wrong: Any) -> None:
    """Assigning something else than a dict or None says so where it happens."""
    with pytest.raises(ValueError, match="preferences"):
        a_user(preferences=wrong)


@pytest.mark.parametrize("way", ["loaded", "refreshed", "assigned None", "made with None"])
def test_null_reads_as_a_dict_and_stays_null_until_written(db: Session, way: str) -> None:
    """However the row's NULL comes about: `{}`, no UPDATE; what is put in is then saved."""
    user = saved(db, None if way == "made with None" else {"a": 1})
    if way == "assigned None":
        assign_none(user)
    elif way != "made with None":
        db.execute(text("UPDATE users SET preferences = NULL"))
        db.expire_all()
    if way == "loaded":
        user_id = user.user_id
        db.expunge_all()
        user = db.get_one(User, user_id)
    assert user.preferences == {}
    assert (stored(db, user), user.preferences) == (None, {})
    assert user not in db.dirty
    user.first_name = "Ada"
    assert stored(db, user) is None
    user.preferences["company"] = "Acme Inc"
    assert stored(db, user) == {"company": "Acme Inc"}


def test_an_empty_dict_over_null_is_written(db: Session) -> None:
    """Assigning `{}` where NULL is stored is a change, and the other way round."""
    user = saved(db, None)
    user.preferences = {}
    assert stored(db, user) == {}
    assign_none(user)
    assert stored(db, user) is None


def test_a_new_user_has_a_dict_before_the_first_flush(db: Session) -> None:
    """Preferences are there to be put in from the beginning, and after it."""
    user = a_user()
    user.preferences["company"] = "Acme Inc"
    db.add(user)
    assert stored(db, user) == {"company": "Acme Inc"}
    user.preferences["theme"] = "dark"
    assert stored(db, user) == {"company": "Acme Inc", "theme": "dark"}


def test_merging_a_user_constructed_in_part_keeps_the_preferences(db: Session) -> None:
    """Only what was given is merged; nobody gave preferences."""
    user = saved(db, {"company": "Acme Inc"})
    db.expunge_all()
    merged = db.merge(User(user_id=user.user_id, first_name="Ada"))
    assert stored(db, merged) == {"company": "Acme Inc"}


def test_a_copy_of_a_user_without_preferences_is_written_as_null_too(db: Session) -> None:
    """Pickled, merged: what stood for NULL still does, and a change of it is saved."""
    user = saved(db, None)
    copy = pickle.loads(pickle.dumps(user))  # noqa: S301  our own
    assert copy.preferences == {}
    copy.first_name = "Ada"
    db.expunge_all()
    merged = db.merge(copy)
    assert stored(db, merged) is None
    merged.preferences["company"] = "Acme Inc"
    assert stored(db, merged) == {"company": "Acme Inc"}
