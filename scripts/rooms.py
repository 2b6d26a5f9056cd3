"""The page `docs/reference/rooms.md`: which module is where, and who may use whom.

What it says of a module is the first line of that module's own docstring. What it says of a
question is a table below, whose every name has to be defined where the table says.
"""

import ast
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """# Modules

Which code is where. The first table answers questions. The sections after it list every module with
what it is for.

A package with a picture has floors, and callers are above. A module may use those on floors below
its own, and none above. `uv run just contracts` checks that, and fails for a module that has no
floor yet ([decision 0035](../decisions/0035-rooms.md)).

"Rule 5" is one of [the ledger's rules](../explanation/rules.md), and "decision 0021" one of
[the decisions](../decisions/index.md).

## Where is …?

"""

WHERE = (
    (
        "Where is it decided which lot is spent first?",
        ("src/common/credits/domain/book.py: Lot.burn_order",),
    ),
    (
        "What stops an UPDATE of an entry?",
        (
            "src/common/models/ledger_triggers_ddl.py: APPEND_ONLY",
            "src/common/postgres/runtime_role.py: PRIVILEGES",
        ),
    ),
    (
        "Where is a key's replay answered?",
        ("src/common/credits/domain/decisions.py: _outcome",),
    ),
    (
        "Where does a hold, or a lot, expire?",
        (
            "src/common/credits/domain/rules.py: settle",
            "src/common/credits/due.py: expire_due",
        ),
    ),
    (
        "Which statements read and write a batch of operations?",
        (
            "src/common/credits/persistence/reading.py: books_statement",
            "src/common/credits/persistence/writing.py: write_statement",
        ),
    ),
    (
        "Where is it decided that a serialization failure is tried again?",
        (
            "src/common/postgres/retries.py: is_worth_retrying",
            "src/common/credits/engine/attempts.py: _is_run_again",
        ),
    ),
    (
        "Which code runs when Stripe sends the same event twice?",
        ("src/common/stripe/inbox.py: finish_event",),
    ),
    (
        "Which code runs when two events tell of the same refund?",
        ("src/common/purchases/money_back.py: record_reversal",),
    ),
    (
        "Which credits does a refund or a dispute take?",
        ("src/common/credits/domain/reversals.py: reallocate",),
    ),
    (
        "Where would I add a package, or a currency?",
        ("src/common/packages.py: Package", "src/html_pages.py: money"),
    ),
    (
        "What takes a second person's consent?",
        ("src/common/approvals/operations.py: takes_consent",),
    ),
    ("What makes a JWT valid?", ("src/api/src/authentication.py: TokenVerifier.verify",)),
    ("Where would I add a command to the CLI?", ("src/cli/commands.py: app",)),
    ("Where would I add an error of the API?", ("src/api/src/errors.py: ERRORS",)),
    ("Where would I add a setting?", ("src/common/settings.py: Settings",)),
    ("Where would I add work for the worker?", ("src/cli/work.py: WORK",)),
)
"""What somebody looks for, and the definitions that answer it, as `file: name`."""


def rooms_page() -> str:
    """The whole page."""
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = configured["tool"]["importlinter"]["contracts"]
    floors = [each for each in contracts if each["type"] == "layers"]
    shown = [*map(_section, floors), *map(_list, _packages_without_floors(floors))]
    return INTRODUCTION + _questions() + "\n".join(shown)


def _questions() -> str:
    rows = "".join(
        f"| {question} | {'<br>'.join(map(_definition, places))} |\n" for question, places in WHERE
    )
    return f"| question | defined in |\n|---|---|\n{rows}\n"


def _definition(place: str) -> str:
    """A `file: name`, as the page shows it.

    Raises:
        LookupError: the file does not define that name, or the class no such method.
    """
    file, _, name = place.partition(": ")
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = next((each for each in body if part in _names(each)), None)
        if found is None:
            raise LookupError(f"{file} does not define {name}")
        body = found.body if isinstance(found, ast.ClassDef) else []
    return f"`{file}`: `{name}`"


def _names(statement: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return [each.id for each in targets if isinstance(each, ast.Name)]


def _packages_without_floors(floors: list[dict[str, Any]]) -> list[Path]:
    """Packages whose modules no contract names; their modules may use each other."""
    named = {
        ROOT / container.replace(".", "/") for each in floors for container in each["containers"]
    }
    found = sorted(file.parent for file in (ROOT / "src").rglob("__init__.py"))
    return [each for each in found if each not in named and any(_modules(each))]


def _modules(package: Path) -> list[str]:
    """Names of a package's modules."""
    files = sorted(package.glob("*.py"))
    return [file.stem for file in files if not file.stem.startswith("__")]


def _list(package: Path) -> str:
    rows = "".join(f"| `{name}` | {_first_line(package / name)} |\n" for name in _modules(package))
    return f"## `{package.relative_to(ROOT)}`\n\n| module | what it is for |\n|---|---|\n{rows}"


def _section(contract: dict[str, Any]) -> str:
    [container] = contract["containers"]
    floors = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    folder = ROOT / container.replace(".", "/")
    rows = "".join(
        f"| `{name}` | {_first_line(folder / name)} |\n" for floor in floors for name in floor
    )
    return (
        f"## `{container.replace('.', '/')}`\n\n{contract['name']}.\n\n{_picture(floors)}\n"
        f"| module | what it is for |\n|---|---|\n{rows}"
    )


def _picture(floors: list[list[str]]) -> str:
    """The floors, for Mermaid, with an arrow from each to the next."""
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    f{number}["{", ".join(floor)}"]' for number, floor in enumerate(floors)]
    lines += [f"    f{number} --> f{number + 1}" for number in range(len(floors) - 1)]
    return "\n".join([*lines, "```", ""])


def _first_line(module: Path) -> str:
    """What a module, or a room, says of itself."""
    file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0].replace("|", r"\|")
