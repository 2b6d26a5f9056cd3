"""CONTRIBUTING is true: the recipes it names exist, with those arguments, and so do the files."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
JUST = Path(sys.executable).with_name("just")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def recipes() -> set[str]:
    """Every call of `just` on a page, as it stands there."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    in_blocks = re.findall(r"^uv run (just\b[^#\n]*)", text, re.MULTILINE)
    in_sentences = re.findall(r"`(?:uv run )?(just [a-z][^`\n]*)`", text)
    return {call.strip() for call in (*in_blocks, *in_sentences)}


def test_there_are_recipes_to_look_at() -> None:
    """The expressions above find what CONTRIBUTING shows."""
    assert {"just", "just lock", "just marathon 1 12345", "just storm 20 12345"} <= recipes()


@pytest.mark.parametrize("call", sorted(recipes()))
def test_a_recipe_exists_and_takes_these_arguments(call: str) -> None:
    """`just` would run it."""
    done = subprocess.run(
        [str(JUST), "--dry-run", *shlex.split(call)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_files_it_names_are_there() -> None:
    """Paths under a folder, and the modules of the ledger's model."""
    named = set(re.findall(r"`([\w./-]+\.(?:py|toml|lock))`", CONTRIBUTING)) - {"uv.lock"}
    somewhere = {path.name for path in ROOT.glob("src/**/*.py")}
    somewhere |= {path.name for path in ROOT.glob("tests/credits/*.py")}
    assert len(named) > 10
    missing = {name for name in named if not (ROOT / name).exists() and name not in somewhere}
    assert missing == set()
