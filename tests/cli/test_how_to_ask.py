"""`docs/how-to/ask-a-second-person.md`: its commands, as written, by two accounts."""

import re
import shlex
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.models import Approval
from src.common.settings import get_settings
from tests.cli.conftest import RunAs, RunCommand
from tests.models.examples import a_user

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ask-a-second-person.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
EXIT_CODES = {"create": 5, "grant": 5, "withdraw": 4}
"""Of what the page says is not done: it is asked for, and it was decided just before."""


def test_the_page_s_commands_do_what_it_says(
    db: Session, flashslides: RunCommand, run_as: RunAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One account asks; another lists, shows and consents; then nobody withdraws any more."""
    db.add(a_user(email="ada@example.com"))
    db.commit()
    setting, *commands = [line for block in BLOCKS for line in block.splitlines()]
    name, _, value = setting.removeprefix("export ").partition("=")
    monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    for line in commands:
        _, group, command, *arguments = shlex.split(line)
        run_as("grace" if group == "approvals" and command != "withdraw" else "ada")
        newest = select(Approval.approval_id).order_by(Approval.created_at.desc()).limit(1)
        approval_id = str(db.scalars(newest).one_or_none())
        arguments = [approval_id if each == "$APPROVAL" else each for each in arguments]
        result = flashslides(group, command, *arguments)
        assert result.exit_code == EXIT_CODES.get(command, 0), result.err
    assert sorted(db.scalars(select(Approval.status))) == ["consented", "open"]
