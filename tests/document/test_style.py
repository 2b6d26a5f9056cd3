"""House rules that no linter knows, checked on the syntax trees of the code."""

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tests.document.document import REPOSITORY

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
ENDS_A_DATABASE_TRANSACTION = re.compile(r"\.(commit|rollback)\(")
OF_THE_EDGES = {"fastapi", "starlette", "typer"}
DOMAIN = ("accounts", "approvals", "credits", "purchases", "stripe")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(*folders: str) -> list[Path]:
    """Every Python file under these folders of the repository."""
    found = chain.from_iterable((REPOSITORY / folder).rglob("*.py") for folder in folders)
    return sorted(found)


def tree_of(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of a file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function):
            yield node


def place(path: Path, node: Function) -> str:
    """Where a function is, for whoever has to change it."""
    return f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}"


def imported(path: Path) -> set[str]:
    """The top-level packages a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_functions_fit_on_a_screen() -> None:
    """No function of ours is longer than 70 lines."""
    assert [
        place(path, node)
        for path in modules("src", "tests", "benchmarks")
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ] == []


def test_files_have_one_subject() -> None:
    """No file under src/ is longer than 400 lines."""
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in modules("src")}
    assert {path for path, length in lengths.items() if length > FILE_LINES_MAX} == set()


def test_every_module_says_what_it_is() -> None:
    """Every Python file begins with a docstring."""
    folders = ("src", "alembic", "tests", "benchmarks")
    assert [path for path in modules(*folders) if ast.get_docstring(tree_of(path)) is None] == []


def test_operations_leave_the_database_transaction_to_their_caller() -> None:
    """Nothing in the domain commits or rolls back: the edge owns the database transaction."""
    files = modules(*(f"src/common/{package}" for package in DOMAIN))
    assert len(files) > len(DOMAIN)
    assert [p for p in files if ENDS_A_DATABASE_TRANSACTION.search(p.read_text("utf-8"))] == []


def test_common_code_knows_no_edge() -> None:
    """Nothing under src/common imports the web or the command-line framework."""
    assert [path for path in modules("src/common") if imported(path) & OF_THE_EDGES] == []


def test_every_test_states_its_property() -> None:
    """Every test function has a docstring."""
    assert [
        place(path, node)
        for path in modules("tests")
        for node in functions(path)
        if node.name.startswith("test_") and ast.get_docstring(node) is None
    ] == []
