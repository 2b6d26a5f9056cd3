"""Renew the pins: the newest versions the ranges allow, as constraints and as a hash-pinned list.

`uv.lock` is not committed: it records the hosts packages came from (decision 0002).
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
LOCK = ROOT / "requirements.lock"
BLOCK = re.compile(r"constraint-dependencies = \[\n.*?\]\n", re.DOTALL)
HEADER = (
    "# Every package with its hashes, for `uv pip sync --require-hashes requirements.lock`.\n"
    "# Made by `uv run just lock`; do not edit.\n"
)


def main() -> None:
    """Resolve afresh, then write both files."""
    text = PYPROJECT.read_text()
    PYPROJECT.write_text(BLOCK.sub("constraint-dependencies = [\n]\n", text))
    _uv("lock", "--upgrade", "--quiet")
    exported = _uv(
        "export", "--quiet", "--all-groups", "--all-extras", "--no-emit-project", "--no-header",
        "--format", "requirements-txt",
    )  # fmt: skip
    LOCK.write_text(HEADER + exported)
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", exported, re.MULTILINE)
    lines = "".join(f'    "{name}=={version}",\n' for name, version in pins)
    PYPROJECT.write_text(BLOCK.sub(f"constraint-dependencies = [\n{lines}]\n", text))
    _uv("lock", "--quiet")


def _uv(*arguments: str) -> str:
    return subprocess.run(
        ["uv", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
