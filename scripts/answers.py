"""Print a table: every command under every condition, what it answered, its exit code.

The tests meet the conditions; this reads what they noted.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

TESTS = ["answers", "ctrl_c", "database_conditions"]
SAID_MAX = 60


def main() -> None:
    """Run the tests and print the table, in Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        paths = [f"tests/cli/test_{name}.py" for name in TESTS]
        subprocess.run(
            [sys.executable, "-m", "pytest", "--quiet", f"--junitxml={report}", *paths],
            check=True,
            stdout=sys.stderr.fileno(),  # noqa: TID251  where progress goes
        )
        noted = ET.parse(report).iter("property")  # noqa: S314  pytest's own
    answers: dict[str, dict[str, str]] = {}
    for each in noted:
        name, condition = each.attrib["name"].split("|")
        exit_code, said = each.attrib["value"].split("|", 1)
        answers.setdefault(name, {})[condition] = f"{exit_code} {_shortened(said)}"
    conditions = list(dict.fromkeys(it for answer in answers.values() for it in answer))
    print("| command |", " | ".join(conditions), "|")  # noqa: T201  what it is for
    print("|---" * (len(conditions) + 1) + "|")  # noqa: T201
    for name, answer in sorted(answers.items()):
        print(f"| {name} |", " | ".join(answer.get(it, "-") for it in conditions), "|")  # noqa: T201


def _shortened(said: str) -> str:
    sentence = said.removeprefix("flashslides: ").removeprefix("Settings: ")
    return sentence if len(sentence) <= SAID_MAX else f"{sentence[:SAID_MAX]}…"


if __name__ == "__main__":
    main()
