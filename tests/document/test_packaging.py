"""The guards that make `src` a respectable import root (decision 0001)."""

import tomllib
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any

import src
from tests.document.document import REPOSITORY

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))


def test_src_is_this_repository_s() -> None:
    """`import src` finds the folder beside these tests, whatever else is installed."""
    assert src.__file__ is not None
    assert Path(src.__file__).parent == REPOSITORY / "src"


def test_src_says_what_it_is() -> None:
    """`src/__init__.py` exists, says that it is the import root and where that was decided."""
    assert src.__doc__ is not None
    assert "import root" in src.__doc__
    assert "docs/decisions/0001-the-import-root-is-src.md" in src.__doc__


def test_pytest_prefers_this_repository() -> None:
    """The test runner puts the repository first and imports no file by its bare name."""
    options = PROJECT["tool"]["pytest"]
    assert options["pythonpath"] == ["."]
    assert "--import-mode=importlib" in options["addopts"]


def test_no_other_distribution_owns_a_file_under_src() -> None:
    """Nothing else that is installed brings a top-level package called `src`."""
    owners = {
        owner.name
        for owner in distributions()
        for file in owner.files or ()
        if file.parts[0] == "src"
    }
    assert owners <= {"flashslides"}


def test_the_wheel_can_not_be_published() -> None:
    """The package index refuses a distribution with this classifier."""
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]
    assert "Private :: Do Not Upload" in (
        distribution("flashslides").metadata.get_all("Classifier") or []
    )


def test_the_decision_is_recorded() -> None:
    """The decision these guards belong to can be read."""
    assert (REPOSITORY / "docs/decisions/0001-the-import-root-is-src.md").is_file()
