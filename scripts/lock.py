"""Renew the pins: all packages as constraints, those of a deployment as a hash-pinned list.

`uv.lock` is not committed: it records the hosts packages came from (decision 0002).
"""

import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
LOCK = ROOT / "requirements.lock"
BLOCK = re.compile(r"constraint-dependencies = \[\n.*?\]\n", re.DOTALL)
HEADER = (
    "# What a deployment runs on, for `uv pip sync --require-hashes requirements.lock`.\n"
    "# Made by `uv run just lock`; do not edit.\n"
)


def main() -> None:
    """Resolve afresh, then write both files."""
    text = PYPROJECT.read_text()
    PYPROJECT.write_text(BLOCK.sub("constraint-dependencies = [\n]\n", text))
    _uv("lock", "--upgrade", "--quiet")
    LOCK.write_text(HEADER + _export("--no-default-groups", "--all-extras"))
    everything = _export("--all-groups", "--all-extras", "--no-hashes")
    lines = "".join(f'    "{pin}",\n' for pin in _pins(everything))
    PYPROJECT.write_text(BLOCK.sub(f"constraint-dependencies = [\n{lines}]\n", text))
    _uv("lock", "--quiet")


def _pins(exported: str) -> list[str]:
    """Each package at its version; a marker where the version depends on the Python."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)(?: ; (.+))?", exported, re.MULTILINE)
    names = Counter(name for name, _, _ in found)
    return [
        f"{name}=={version} ; {marker}" if names[name] > 1 else f"{name}=={version}"
        for name, version, marker in found
    ]


def _export(*what: str) -> str:
    return _uv(
        "export",
        "--quiet",
        "--no-emit-project",
        "--no-header",
        "--format",
        "requirements-txt",
        *what,
    )


def _uv(*arguments: str) -> str:
    return subprocess.run(
        ["uv", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
