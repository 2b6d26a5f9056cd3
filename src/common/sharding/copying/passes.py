"""One pass of a copy: everything is compared, and what differs is copied anew.

A pass that is interrupted is repeated: what is the same is left as it is. A user comes with all
that is theirs, in one database transaction here, as of one snapshot of the source; two users may be
of different moments as long as the source is written to.
"""

import uuid
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from typing import Any

from src.common.exceptions import Inconsistent, SettingsError
from src.common.postgres.routes import SHARED_SCHEMA
from src.common.sharding.copying import users_rows
from src.common.sharding.copying.databases import Database, by_place
from src.common.sharding.copying.parity import Content, Parity
from src.common.sharding.copying.shared_rows import Key, SharedTable, pages, shared_tables
from src.common.sharding.groups import NO_GROUPS

USERS_A_PORTION = 500
ROWS_A_PORTION = 1_000

Places = dict[uuid.UUID, str]
UsersContents = dict[uuid.UUID, dict[str, Content]]


@dataclass
class Pass:
    """One pass from a database to another."""

    source: Database
    here: Database
    writes: bool
    """Or only compares."""
    parity: Parity = field(default_factory=Parity)

    def run(self) -> Generator[Parity]:
        """Do it all; after each portion, what was found and done so far.

        Raises:
            Inconsistent: COPY_DIFFERS, what was copied is not the same.
            SettingsError: the role here may not write so; or no group takes users.
        """
        for table in shared_tables():
            yield from self._share(table)
        assigned = _Groups(self.here) if self.here.groups else None
        last: uuid.UUID | None = None
        while True:
            with self.source.snapshot():
                user_ids = self.source.users_after(last, USERS_A_PORTION)
                if user_ids:
                    self._bring(user_ids, assigned)
            if not user_ids:
                break
            last = user_ids[-1]
            yield self.parity
        yield from self._remove_users()

    def refuse_rows_of_nobody(self) -> None:
        """Count what was compared, by another way than by users, while nobody writes.

        Raises:
            Inconsistent: COPY_DIFFERS, there are rows whose user is not known.
        """
        for table in users_rows.COPIED:
            both = self.parity.of(table)
            with self.source.snapshot(), self.here.snapshot():
                counted = [users_rows.count_rows(each, table) for each in (self.source, self.here)]
            if counted != [both.source.rows, both.here.rows]:
                raise Inconsistent(f"There are rows of nobody in {table}", "COPY_DIFFERS")

    def _share(self, table: SharedTable) -> Generator[Parity]:
        """Have this table here as it is there.

        First what is gone there, which may have what is unique in a row that came for it.
        """
        for keys in pages(table, self.here, ROWS_A_PORTION):
            with self.source.snapshot():
                theirs = table.read_contents(self.source, keys)
            left = [key for key in keys if key not in theirs]
            if left:
                self._remove_rows(table, left)
            yield self.parity
        for keys in pages(table, self.source, ROWS_A_PORTION):
            with self.source.snapshot(), self.at_work():
                theirs = table.read_contents(self.source, keys)
                ours = table.read_contents(self.here, keys)
                changed = [key for key in keys if theirs.get(key) != ours.get(key)]
                if self.writes and changed:
                    table.delete(self.here, changed)
                    table.copy(self.source, self.here, changed)
                    self.parity.shared_rows_copied += len(changed)
                    ours = table.read_contents(self.here, keys)
                    _refuse_difference(theirs, ours, table.name)
            self._add(table.name, theirs.values(), ours.values())
            yield self.parity

    def _remove_rows(self, table: SharedTable, keys: list[Key]) -> None:
        with self.at_work():
            if self.writes:
                table.delete(self.here, keys)
            else:
                self._add(table.name, (), table.read_contents(self.here, keys).values())

    def _bring(self, user_ids: list[uuid.UUID], assigned: "_Groups | None") -> None:
        """Have these users here as they are there."""
        there = self.source.places_of(user_ids)
        theirs = users_rows.read_contents(self.source, there)
        with self.at_work():
            places = self.here.places_of(user_ids)
            ours = users_rows.read_contents(self.here, places)
            changed = [each for each in theirs if theirs[each] != ours.get(each)]
            if self.writes and changed:
                for user_id in changed:
                    if user_id not in places:
                        places[user_id] = assigned.choose() if assigned else SHARED_SCHEMA
                self._copy_users(
                    {each: there[each] for each in changed},
                    {each: places[each] for each in changed},
                )
                self.parity.users_copied += len(changed)
                ours = users_rows.read_contents(self.here, places)
                _refuse_difference(theirs, ours, "users")
        self.parity.users += len(theirs)
        self._add_users(theirs, ours)

    def _copy_users(self, there: Places, places: Places) -> None:
        """Copy all that these users have, in place of what they have here."""
        whose = users_rows.read_whose(self.source, there)
        # What was another user's when that one was copied: they come again.
        others = {*users_rows.users_who_have(self.here, whose)} - {*places}
        users_rows.delete_users(self.here, {**self.here.places_of(others), **places})
        users_rows.forget_what_waited(self.source, there, self.here)
        for from_schema, user_ids in by_place(there).items():
            moving = {user_id: places[user_id] for user_id in user_ids}
            for to_schema, moved in by_place(moving).items():
                for table in users_rows.COPIED:
                    users_rows.copy_table(
                        self.source, from_schema, self.here, to_schema, table, moved
                    )
        if self.here.groups:
            for schema, user_ids in by_place(places).items():
                users_rows.note_in_directory(self.here, schema, user_ids)

    def _remove_users(self) -> Generator[Parity]:
        """Have nobody here who is not there."""
        last: uuid.UUID | None = None
        while True:
            with self.here.snapshot():
                user_ids = self.here.users_after(last, USERS_A_PORTION)
            if not user_ids:
                return
            last = user_ids[-1]
            with self.source.snapshot():
                there = self.source.places_of(user_ids)
            left = [each for each in user_ids if each not in there]
            if left:
                self._remove(left)
            yield self.parity

    def _remove(self, user_ids: list[uuid.UUID]) -> None:
        with self.at_work():
            places = self.here.places_of(user_ids)
            self.parity.users_removed += len(places)
            if self.writes:
                users_rows.delete_users(self.here, places)
            else:
                self._add_users({}, users_rows.read_contents(self.here, places))

    def at_work(self) -> AbstractContextManager[None]:
        """What is done here within the block is one database transaction."""
        return self.here.writing() if self.writes else self.here.snapshot()

    def _add_users(self, theirs: UsersContents, ours: UsersContents) -> None:
        for contents, is_theirs in ((theirs, True), (ours, False)):
            for tables in contents.values():
                for table, content in tables.items():
                    both = self.parity.of(table)
                    (both.source if is_theirs else both.here).add(content)

    def _add(self, table: str, theirs: Iterable[Content], ours: Iterable[Content]) -> None:
        both = self.parity.of(table)
        for content in theirs:
            both.source.add(content)
        for content in ours:
            both.here.add(content)


class _Groups:
    """The open groups here, the one with the fewest users first."""

    def __init__(self, here: Database) -> None:
        with here.snapshot():
            counted = here.raw.execute(
                "SELECT schema, (SELECT count(*) FROM users_directory AS noted"
                " WHERE noted.schema = made.schema) FROM user_groups AS made WHERE is_open"
            ).fetchall()
        if not counted:
            raise SettingsError(NO_GROUPS)
        self._queue: list[tuple[int, str]] = [(users, schema) for schema, users in counted]
        heapify(self._queue)

    def choose(self) -> str:
        """The group for one more."""
        users, schema = self._queue[0]
        heapreplace(self._queue, (users + 1, schema))
        return schema


def _refuse_difference(theirs: Mapping[Any, Any], ours: Mapping[Any, Any], table: str) -> None:
    if any(ours.get(each) != content for each, content in theirs.items()):
        raise Inconsistent(
            f"What was copied of {table} is not what the source has: nothing of it was kept",
            "COPY_DIFFERS",
        )
