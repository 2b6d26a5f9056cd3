"""What the code calls "rule 5" is on the page of the ledger's rules."""

import re
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/rules.md").read_text(encoding="utf-8")
NUMBERS = [int(number) for number in re.findall(r"^## Rule (\d+): ", PAGE, re.MULTILINE)]
NAMED = re.compile(r"\b[Rr]ules? (\d+)(?: (?:and|to) (\d+))?")


def test_rules_are_numbered_without_a_gap() -> None:
    """From 1 on."""
    assert NUMBERS[0] == 1
    assert all(after == before + 1 for before, after in pairwise(NUMBERS))


def test_every_rule_that_is_named_is_on_the_page() -> None:
    """By code, tests and pages, alone or as a range."""
    files = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    files += (ROOT / "docs").rglob("*.md")
    named = {
        int(number)
        for path in files
        for found in NAMED.findall(path.read_text(encoding="utf-8"))
        for number in found
        if number
    }
    assert {2, 5, 8, 11} <= named
    assert named - set(NUMBERS) == set()


def test_triggers_are_called_triggers() -> None:
    """Not "walls", which nobody but their authors would look for."""
    folders = ("src", "alembic", "benchmarks", "scripts", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    named = [path for path in files if path.suffix in {".py", ".md"}]
    assert [path for path in named if re.search(r"walls?\b", path.name)] == []
    texts = {path: path.read_text(encoding="utf-8") for path in named}
    assert [path for path, each in texts.items() if re.search(r"(\b|_)walls?(\b|_)", each)] == []


def test_no_text_leads_to_a_document_that_is_not_here() -> None:
    """Sections (`§`) are named of standards alone, which anybody can look up."""
    lines = [
        (path.relative_to(ROOT), line)
        for folder in ("src", "alembic", "benchmarks", "docs")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".md"}
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert [found for found in lines if "§" in found[1] and "RFC" not in found[1]] == []
