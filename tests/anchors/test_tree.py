"""The tree over users: one root for a set of leaves, and a proof that nothing else passes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.common.anchors.kept_tree import KeptTree
from src.common.anchors.tree import NOBODY, Step, TreeBuilder, root_by_path, root_of
from tests.anchors.made import crowd, crowds, leaves


def recursively(people: list[bytes], bit: int = 0) -> bytes:
    """The root, by the definition: those with 0 in the first bit that differs are on the left."""
    if not people:
        return hashlib.sha256(b"").digest()
    if len(people) == 1:
        return hashlib.sha256(b"\0" + people[0]).digest()
    left = [leaf for leaf in people if not leaf[bit // 8] >> (7 - bit % 8) & 1]
    right = people[len(left) :]
    if not left or not right:
        return recursively(people, bit + 1)
    children = recursively(left, bit + 1) + recursively(right, bit + 1)
    return hashlib.sha256(b"\1" + bytes([bit]) + children).digest()


@given(crowds, st.integers(1, 5))
def test_the_root_is_the_one_of_the_definition(people: list[bytes], size: int) -> None:
    """However the leaves come in pieces."""
    pieces = [b"".join(people[start : start + size]) for start in range(0, len(people), size)]
    assert root_of(pieces) == recursively(people)


def test_the_tree_of_nobody_is_the_hash_of_nothing() -> None:
    """As in RFC 6962."""
    assert root_of([]) == NOBODY == KeptTree().root


@given(crowds)
def test_every_leaf_has_a_path_to_the_root(people: list[bytes]) -> None:
    """Of at most as many steps as an id has bits."""
    for leaf in people:
        builder = TreeBuilder(wanted=leaf[:16])
        builder.add(b"".join(people))
        root = builder.root()
        assert builder.has_wanted
        assert root_by_path(leaf, builder.path) == root
        assert len(builder.path) <= min(128, len(people) - 1)


def test_a_path_is_short() -> None:
    """About as long as the logarithm of the number of users."""
    people = crowd(4_096)
    builder = TreeBuilder(wanted=people[7][:16])
    builder.add(b"".join(people))
    builder.root()
    assert len(builder.path) < 24


@given(crowds.filter(lambda people: len(people) > 1), st.data())
def test_no_changed_octet_proves_anything(people: list[bytes], data: st.DataObject) -> None:
    """Of the leaf, of a sibling or of a bit: another root follows, or none."""
    leaf = data.draw(st.sampled_from(people))
    builder = TreeBuilder(wanted=leaf[:16])
    builder.add(b"".join(people))
    root = builder.root()
    place = data.draw(st.integers(0, len(leaf) - 1))
    flip = data.draw(st.integers(1, 255))
    assert _root_or_none(_flipped(leaf, place, flip), builder.path) != root
    step = data.draw(st.integers(0, len(builder.path) - 1))
    bit, sibling = builder.path[step]
    at = data.draw(st.integers(0, 31))
    for changed in (Step(bit, _flipped(sibling, at, flip)), Step(bit ^ flip, sibling)):
        path = [*builder.path[:step], changed, *builder.path[step + 1 :]]
        assert _root_or_none(leaf, path) != root
    assert _root_or_none(leaf, builder.path[:step] + builder.path[step + 1 :]) != root


@given(crowds, leaves)
def test_a_leaf_that_is_not_there_has_no_path(people: list[bytes], stranger: bytes) -> None:
    """Not even that of a neighbour, or of the same user at another version."""
    if stranger in people:
        return
    for leaf in people:
        builder = TreeBuilder(wanted=leaf[:16])
        builder.add(b"".join(people))
        root = builder.root()
        assert _root_or_none(stranger, builder.path) != root


@pytest.mark.parametrize("order", [[1, 0], [0, 0]])
def test_leaves_come_in_order_and_once(order: list[int]) -> None:
    """So no user can have two leaves."""
    people = crowd(2)
    builder = TreeBuilder()
    with pytest.raises(ValueError, match="order of user ids"):
        builder.add(b"".join(people[place] for place in order))


@given(st.lists(crowds, max_size=5))
def test_a_tree_that_is_kept_is_the_one_made_anew(changes: list[list[bytes]]) -> None:
    """After every change: its root, and how many users and entries there are."""
    tree, everybody = KeptTree(), dict[bytes, bytes]()
    for change in changes:
        tree.change(b"".join(change))
        everybody |= {leaf[:16]: leaf for leaf in change}
        people = [everybody[who] for who in sorted(everybody)]
        assert tree.root == root_of([b"".join(people)])
        entries = sum(int.from_bytes(leaf[16:24]) for leaf in people)
        assert (tree.users, tree.entries) == (len(people), entries)


def _flipped(octets: bytes, place: int, flip: int) -> bytes:
    changed = bytearray(octets)
    changed[place] ^= flip
    return bytes(changed)


def _root_or_none(leaf: bytes, path: list[Step]) -> bytes | None:
    try:
        return root_by_path(leaf, path)
    except ValueError:
        return None
