"""Tables and records: every value whole, in the terminal's width wherever that is possible."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from src.cli.layout import lay_out_record, lay_out_rows
from src.local_postgres import ConnectionParameters
from tests.cli.processes import PATIENCE_SECONDS, Program
from tests.fixtures.databases import environment_of

WIDTH = 80
NAMES = ("user_id", "amount", "reference", "actor", "created_at")
WORDS = st.text("abcdefgh01234567-@._株é", min_size=1, max_size=40)
VALUES = st.lists(WORDS, max_size=6).map(" ".join)
ROWS = st.lists(
    st.tuples(*[VALUES] * len(NAMES))
    .filter(any)
    .map(lambda row: dict(zip(NAMES, row, strict=True))),
    min_size=1,
    max_size=5,
)


def words_of(rows: list[dict[str, str]]) -> list[str]:
    """Every word of every value, in order."""
    return [word for row in rows for value in row.values() for word in value.split()]


@given(ROWS, st.integers(min_value=20, max_value=200))
def test_no_value_is_cut_and_no_line_is_too_long(rows: list[dict[str, str]], width: int) -> None:
    """All words are there, whole and in order; only one that fits nowhere sticks out."""
    lines = lay_out_rows(rows, width)
    printed = [word for line in lines for word in line.split() if word not in NAMES]
    assert printed == words_of(rows)
    for line in lines:
        label, *words = [word for word in line.split() if word in NAMES] or [""]
        assert not words or line == lines[0]  # the columns' names
        said = line.removeprefix(label).strip()
        assert cell_len(line) <= width or " " not in said


@given(ROWS)
def test_an_empty_column_is_left_out(rows: list[dict[str, str]]) -> None:
    """In a table, and in one record below the other; each other column is named."""
    for width in (None, WIDTH):
        lines = lay_out_rows(rows, width)
        named = {word for line in lines for word in line.split() if word in NAMES}
        assert named == {name for name in NAMES if any(row[name] for row in rows)}


@given(ROWS)
def test_in_a_pipe_a_row_is_a_line(rows: list[dict[str, str]]) -> None:
    """Below the line of names, however long it is."""
    assert len(lay_out_rows(rows, None)) == 1 + len(rows)


@given(ROWS)
def test_what_fits_is_a_table_and_what_does_not_is_records(rows: list[dict[str, str]]) -> None:
    """The same rows, a little too wide and just wide enough."""
    needed = max(map(cell_len, lay_out_rows(rows, None)))
    assert len(lay_out_rows(rows, needed)) == 1 + len(rows)
    narrow = lay_out_rows(rows, needed - 1)
    assert narrow.count("") == len(rows) - 1
    assert narrow[0].split()[0] in NAMES


def test_lines_of_a_value_stand_below_each_other() -> None:
    """As a JSON document in a record; in a pipe's row they are one line."""
    value = '{\n "id": 1\n}'
    assert lay_out_record({"id": "7", "body": value}, WIDTH) == [
        "id    7",
        "body  {",
        '       "id": 1',
        "      }",
    ]
    assert lay_out_rows([{"body": value}], WIDTH) == ["body  {", '       "id": 1', "      }"]
    assert lay_out_rows([{"body": value}], None) == ["body", r'{\n "id": 1\n}']


@pytest.mark.parametrize("columns", [WIDTH, 200])
def test_a_terminal_s_width_is_heeded(
    tmp_path: Path, fresh_database: ConnectionParameters, columns: int
) -> None:
    """On a real one: records where a table does not fit, the ids whole either way."""
    program = Program(tmp_path, environment_of(fresh_database) | {"ENV": "local"})
    ids = [
        program.run_json("api-key", "create", "--scopes", "credits:read,users:read")["key_id"]
        for _ in range(2)
    ]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    subprocess.run(
        [str(program.command), "api-key", "list"],
        stdout=theirs,
        check=True,
        cwd=tmp_path,
        env=dict(program.environment),
        timeout=PATIENCE_SECONDS,
    )
    os.close(theirs)
    printed = b""
    while chunk := _read(ours):
        printed += chunk
    os.close(ours)
    lines = printed.decode().splitlines()
    assert max(map(len, lines)) <= columns
    assert (len(lines) == 3) == (columns == 200)
    for key_id in ids:
        assert sum(key_id in line for line in lines) == 1


def _read(terminal: int) -> bytes:
    """What is left to read; nothing once nobody can write any more."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""
