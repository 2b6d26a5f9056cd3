"""What two databases have of each table: rows, and one digest of them, whatever their order."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

_DIGEST_BITS = 256


class Content(NamedTuple):
    """Some rows of one table."""

    rows: int
    digest: bytes
    """SHA-256 over the rows' own, each of the row's text."""


@dataclass
class Sum:
    """Rows of one table, added up."""

    rows: int = 0
    _digest: int = 0

    @property
    def digest(self) -> str:
        """The same for the same rows, in whichever portions they were added."""
        return f"{self._digest:0{_DIGEST_BITS // 4}x}"

    def add(self, content: Content) -> None:
        """Add some rows."""
        self.rows += content.rows
        self._digest = (self._digest + int.from_bytes(content.digest)) % 2**_DIGEST_BITS


@dataclass
class TableParity:
    """One table on both sides."""

    source: Sum = field(default_factory=Sum)
    here: Sum = field(default_factory=Sum)

    @property
    def is_same(self) -> bool:
        """Whether both have the same rows."""
        return self.source == self.here


@dataclass
class Parity:
    """What a copy, or a comparison, has found and done."""

    users: int = 0
    """Compared so far; all of the source's, in the end."""
    users_copied: int = 0
    """Who were new or changed."""
    users_removed: int = 0
    """Who are not in the source, or no longer."""
    shared_rows_copied: int = 0
    """Of tables that are about everybody."""
    tables: dict[str, TableParity] = field(default_factory=dict[str, TableParity])

    @property
    def is_same(self) -> bool:
        """Whether both databases have the same rows."""
        return all(each.is_same for each in self.tables.values())

    def of(self, table: str) -> TableParity:
        """The table's own."""
        return self.tables.setdefault(table, TableParity())

    def rows(self) -> list[dict[str, Any]]:
        """Each table, for people and programs."""
        return [
            {
                "table": table,
                "rows_in_source": each.source.rows,
                "rows_here": each.here.rows,
                "digest_of_source": each.source.digest,
                "digest_here": each.here.digest,
                "is_same": each.is_same,
            }
            for table, each in sorted(self.tables.items())
        ]

    def record(self) -> dict[str, Any]:
        """All of it."""
        counts = {name: value for name, value in asdict(self).items() if name != "tables"}
        return {**counts, "is_same": self.is_same, "tables": self.rows()}
