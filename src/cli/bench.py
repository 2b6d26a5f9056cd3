"""`flashslides bench`: the benchmarks of the checkout, from wherever the command is called."""

import os
import sys
from pathlib import Path

import typer

from src.common.exceptions import SettingsError

ROOT = Path(__file__).resolve().parents[2]


def bench(context: typer.Context) -> None:
    """Measure spending credits, side by side, on a durable server of its own; `--help` for more.

    The same as `python -m benchmarks` in the checkout: the wheel does not hold the benchmarks.
    Stripe's events have one of their own there: `python -m benchmarks.webhooks`.
    """
    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        raise SettingsError(
            f"The benchmarks are part of the repository, not of the installed package, and {ROOT} "
            "is no checkout of it. Clone the repository, run `uv sync`, and repeat this there"
        )
    # In place of this process: a signal reaches the one that has a server to stop and remove.
    command = [sys.executable, "-m", "benchmarks", *context.args]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": str(ROOT)})  # noqa: S606  ours
