"""The page `docs/how-to/use-the-console.md`: its settings work, and its table is the matrix."""

import re
from pathlib import Path

from src.common.settings import load_settings
from src.console.permissions import MATRIX, Permission, Role
from tests.document.test_blocks import blocks

NAME = "docs/how-to/use-the-console.md"
PAGE = (Path(__file__).parents[2] / NAME).read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z]+:[a-z]+)` \| (.*) \|$", re.MULTILINE)


def test_the_settings_of_the_page_are_a_whole_sign_in() -> None:
    """As they stand, a deployment starts with them."""
    [written] = blocks(NAME, "ini")
    values = dict(line.split("=", 1) for line in written.splitlines())
    settings = load_settings(
        env="prod",
        database_password="a-long-password-of-this-test",
        **{name.lower(): value for name, value in values.items()},
    )
    assert settings.has_console
    assert settings.console_has_oidc


def test_the_table_of_the_page_is_the_matrix() -> None:
    """Permission by permission, role by role."""
    assert f"| permission | {' | '.join(Role)} |" in PAGE
    written = {
        name: [cell.strip() == "yes" for cell in cells.split("|")]
        for name, cells in ROW.findall(PAGE)
    }
    assert written == {
        permission: [permission in MATRIX[role] for role in Role] for permission in Permission
    }


def test_the_commands_of_the_page_are_those_that_print_links() -> None:
    """`tests/cli/test_serve.py` and `tests/cli/test_console.py` follow them."""
    serve, link = blocks(NAME, "bash")
    assert serve == "flashslides serve\n"
    assert link.split()[:3] == ["flashslides", "console", "link"]
    name, role = _options(link)
    assert (name, Role(role)) == ("grace", Role.ADMIN)


def _options(line: str) -> tuple[str, str]:
    """The name and the role of a command line."""
    words = line.split()
    return words[words.index("--name") + 1], words[words.index("--role") + 1]
