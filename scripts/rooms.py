"""The page `docs/reference/rooms.md`: which module is where, and who may use whom."""

import ast
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """# Rooms

Where to look for what. A module may use those on floors below its own, and none above. `uv run just
contracts` holds that, and fails for a module that has no floor yet
([decision 0035](../decisions/0035-rooms.md)). In each picture the callers are above.

"""


def rooms_page() -> str:
    """The whole page."""
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = configured["tool"]["importlinter"]["contracts"]
    floors = [each for each in contracts if each["type"] == "layers"]
    return INTRODUCTION + "\n".join(map(_section, floors))


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
