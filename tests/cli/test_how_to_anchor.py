"""`docs/how-to/anchor-the-ledger.md`: its commands are run, its tables are the code's."""

import re
from pathlib import Path

import pytest

from src.common.anchor_settings import AnchorSettings
from src.common.anchors import http_sink
from src.common.anchors.findings import FindingKind
from src.common.credits.domain.commands import Grant
from src.common.database import SessionLocal
from src.common.settings import get_settings
from tests.cli.conftest import RunCommand
from tests.credits.ledger import do, someone
from tests.document.test_blocks import blocks, page

NAME = "docs/how-to/anchor-the-ledger.md"


@pytest.mark.usefixtures("fresh_database")
def test_its_commands_run(
    run_command: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, in one folder, with the settings that the page names."""
    monkeypatch.chdir(tmp_path)
    with SessionLocal.begin() as session:
        do(session, Grant, someone(session, email="ada@example.com"), amount=5)
    lines = [line for block in blocks(NAME, "bash") for line in block.splitlines() if line]
    for line in map(str.strip, lines):
        program, *words = line.partition(" > ")[0].split()
        assert program == "flashslides"
        done = run_command(*words)
        if words == ["doctor", "anchors"]:
            assert "Checkpoint 1 is" in done.out
        assert done.exit_code == 0, (line, done.out, done.err)
        if "keygen" in words:
            monkeypatch.setenv("ANCHOR_SIGNING_KEY_FILE", str(tmp_path / words[-1]))
            monkeypatch.setenv("ANCHOR_PUBLIC_KEYS", done.out.split()[1])
            monkeypatch.setenv("ANCHOR_SINKS", f"file:{tmp_path / 'anchors.jsonl'}")
            get_settings.cache_clear()
        if " > " in line:
            (tmp_path / line.partition(" > ")[2]).write_text(done.out)
    get_settings.cache_clear()


def test_its_kinds_of_findings_are_all() -> None:
    """Every one that `verify --anchors` can name."""
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page(NAME), re.MULTILINE)) >= set(FindingKind)


def test_its_settings_exist() -> None:
    """Whatever of theirs the page names."""
    named = set(re.findall(r"ANCHOR_[A-Z0-9_]+", page(NAME))) - set(FindingKind)
    assert named == {name.upper() for name in AnchorSettings.model_fields} - {"ENV"}


def test_what_an_endpoint_answers_is_what_the_code_says() -> None:
    """The table of the module is the page's."""
    rows = [line for line in (http_sink.__doc__ or "").splitlines() if line.startswith("|")]
    assert "\n".join(rows) in page(NAME)
