"""`flashslides bench`: the benchmarks of the checkout, from wherever the command is called."""

import os
import sys
from pathlib import Path

import typer

from src.common.exceptions import SettingsError

ROOT = Path(__file__).resolve().parents[2]


def bench(context: typer.Context) -> None:
    """Compare ways to spend credits: how many a second, and how long each takes.

    It starts a durable PostgreSQL server of its own, and stops it at the end. `--help` lists the
    options.

    The benchmarks are not part of the wheel. So this runs `python -m benchmarks` in a checkout.
    """
    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        raise SettingsError(
            f"The benchmarks are part of the repository, not of the installed package, and {ROOT} "
            "is no checkout of it. Clone the repository, run `uv sync`, and repeat this there"
        )
    # In place of this process: a signal reaches the one that has a server to stop and remove.
    command = [sys.executable, "-m", "benchmarks", *context.args]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": str(ROOT)})  # noqa: S606  ours
