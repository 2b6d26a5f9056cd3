"""Fixtures of the commands' tests: the command in this process, an offline Stripe."""

from tests.cli.conftest import data_folder, flashslides, loop, run_command

__all__ = ["data_folder", "flashslides", "loop", "run_command"]
