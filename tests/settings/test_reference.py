"""The written reference says what the code does."""

import re
from pathlib import Path

from src.common.postgres.retries import ATTEMPTS_MAX
from src.common.settings import Settings, load_settings
from src.common.ssm import FOLDER_BY_FIELD
from tests.document.document import blocks

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference/settings.md").read_text()
EXPLANATION = (ROOT / "docs/explanation/database-transactions.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
ROW = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
DOCUMENT_S_FIVE = ["HOST", "PORT", "NAME", "USER", "PASSWORD"]


def _written(value: object) -> str:
    """A default as a person writes it in a `.env` file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _defaults() -> dict[str, str | None]:
    return {
        name.upper(): None if field.default is None else _written(field.default)
        for name, field in Settings.model_fields.items()
    }


def _is_of_the_console(named: tuple[str, str | None]) -> bool:
    """They stand in a table of their own, after the others."""
    return named[0].startswith("CONSOLE_")


def test_the_reference_lists_every_setting_with_its_default() -> None:
    """A setting that is added, removed or changed has its row changed with it, in order."""
    rows = {name: default for name, default, _ in ROW.findall(REFERENCE)}
    expected = {
        name: "not set" if default is None else f"`{default}`"
        for name, default in sorted(_defaults().items(), key=_is_of_the_console)
    }
    assert list(rows.items()) == list(expected.items())


def test_the_reference_names_every_secret_s_parameter() -> None:
    """Who writes the parameter finds its path in the row."""
    meanings = {name: meaning for name, _, meaning in ROW.findall(REFERENCE)}
    for field, folder in FOLDER_BY_FIELD.items():
        assert f"`/flashslides/{{ENV}}/{folder}/{field.upper()}`" in meanings[field.upper()]
    assert sum("SSM:" in meaning for meaning in meanings.values()) == len(FOLDER_BY_FIELD)


def test_the_example_changes_nothing_as_copied(bare_process: Path) -> None:
    """Whoever copies it and starts has what those have who did not."""
    (bare_process / ".env").write_text(EXAMPLE)
    settings = load_settings()
    fields = Settings.model_fields
    assert {name for name in fields if getattr(settings, name) != fields[name].default} == set()


def test_the_example_begins_with_the_document_s_five(bare_process: Path) -> None:
    """Uncommented as they are, they mean what the document's own block means."""
    offered = re.findall(r"^# ([A-Z_]+)=", EXAMPLE, re.MULTILINE)
    assert offered[:5] == [f"DATABASE_{name}" for name in DOCUMENT_S_FIVE]
    lines = re.findall(r"^# ([A-Z_]+=.*)$", EXAMPLE, re.MULTILINE)[:5]
    [block] = [each for each in blocks("bash") if "DATABASE_HOST=" in each]
    assert [line.split() for line in lines] == [
        line.split() for line in block.splitlines() if line.startswith("DATABASE_")
    ]
    (bare_process / ".env").write_text("\n".join(lines))
    settings = load_settings()
    assert settings.database_password is not None
    assert settings.database_password.get_secret_value() == "postgres"
    fields = Settings.model_fields
    changed = {name for name in fields if getattr(settings, name) != fields[name].default}
    assert changed == {"database_host", "database_password"}
    assert settings.database_host == "postgres"


def test_the_example_offers_settings_that_exist_with_their_defaults() -> None:
    """To uncomment a line after the document's five changes nothing until its value is changed."""
    offered = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)[5:])
    defaults = _defaults()
    assert offered == {name: defaults[name] or "" for name in offered}
    assert offered


def test_the_explanation_counts_the_attempts_right() -> None:
    """The number of attempts is written as a word."""
    words = {5: "five", 6: "six", 7: "seven", 8: "eight"}
    assert f"{words[ATTEMPTS_MAX]} attempts in all" in EXPLANATION
