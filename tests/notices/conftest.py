"""Commands, as in tests/cli."""

from tests.cli.conftest import data_folder, flashslides, run_command

__all__ = ["data_folder", "flashslides", "run_command"]
