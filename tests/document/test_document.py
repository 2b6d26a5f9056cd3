"""The document's imports and locations hold, and none of its Python goes untested."""

import ast
import re

import pytest

from tests.document.document import BAD_SNIPPETS, REPOSITORY, SNIPPETS, TEXT, blocks

IMPORTS = sorted(set(re.findall(r"^ *(from src\.\S+ import .+)$", TEXT, re.MULTILINE)))
LOCATIONS = sorted(set(re.findall(r"`((?:src|alembic)/[\w./]*)`", TEXT)))


@pytest.mark.parametrize("line", IMPORTS)
def test_every_import_of_the_document_works(line: str) -> None:
    """An import line of the document finds the module and every name it asks for."""
    names: dict[str, object] = {}
    exec(compile(line, "the document", "exec"), names)  # noqa: S102  the document's own line
    [statement] = ast.parse(line).body
    assert isinstance(statement, ast.ImportFrom)
    assert all(alias.name in names for alias in statement.names)


@pytest.mark.parametrize("location", LOCATIONS)
def test_every_location_of_the_document_exists(location: str) -> None:
    """A file or folder the document names is where it says."""
    path = REPOSITORY / location
    assert path.is_dir() if location.endswith("/") else path.is_file()


def test_the_document_names_imports_and_locations() -> None:
    """The two expressions above find what they are meant to find."""
    assert "from src.common.database import Base, engine" in IMPORTS
    assert "from src.common.async_database import init_async_db" in IMPORTS
    assert {"src/common/models/", "src/api/src/main.py", "alembic/"} <= set(LOCATIONS)


def test_every_block_of_python_has_a_name() -> None:
    """Each block is known to the tests by exactly one piece of text: none goes unnoticed."""
    known = (*SNIPPETS.values(), *BAD_SNIPPETS)
    found = [[text for text in known if text in f"\n{block}"] for block in blocks("python")]
    assert all(len(texts) == 1 for texts in found), found
    assert sorted(text for [text] in found) == sorted(known)


def test_every_named_block_is_run_by_a_test() -> None:
    """The name of each block that is meant to work appears in a test of this folder."""
    tests = "".join(
        path.read_text(encoding="utf-8")
        for path in (REPOSITORY / "tests").glob("*/test_*.py")
        if path.parent.name in {"document", "models", "migrations"}
    )
    assert [name for name in SNIPPETS if f'"{name}"' not in tests] == []
