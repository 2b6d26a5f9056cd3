"""Where the code that is measured lies: in this checkout, or in one of another git revision."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class NotBuilt(Exception):
    """A revision is not there, or its environment cannot be made; the message says why."""


@dataclass(frozen=True)
class Checkout:
    """Code, and the Python with what it needs."""

    root: Path
    python: Path

    @property
    def gives_hashes(self) -> bool:
        """Whether its entries carry hashes (decision 0061)."""
        return (self.root / "src" / "common" / "credits" / "domain" / "chain.py").exists()

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base`, for a process that imports this checkout's code."""
        return {**base, "PYTHONPATH": str(self.root)}


HERE = Checkout(ROOT, Path(sys.executable))


@contextmanager
def built(revision: str, folder: Path, say: Callable[[str], None]) -> Generator[Checkout]:
    """Build a revision below `folder`, until the block is left: a worktree with its environment.

    Raises:
        NotBuilt: git or uv refuses.
    """
    with tempfile.TemporaryDirectory(prefix="flashslides-against-", dir=folder) as parent:
        root = Path(parent) / "checkout"
        say(f"Building {revision}")
        _run("git", "worktree", "add", "--quiet", "--detach", str(root), revision)
        try:
            _run("uv", "sync", "--quiet", "--no-default-groups", "--directory", str(root))
            yield Checkout(root, root / ".venv" / "bin" / "python")
        finally:
            _run("git", "worktree", "remove", "--force", str(root))


def _run(*command: str) -> None:
    left_out = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"}  # this checkout's
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotBuilt(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
