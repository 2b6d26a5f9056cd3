"""Fixtures every test may use; the environment of whoever runs the tests does not reach them."""

import gc
import os
import signal
import sys
import uuid
from collections.abc import Generator

import hypothesis
import pytest

pytest_plugins = [
    *("tests.fixtures.databases", "tests.fixtures.api", "tests.fixtures.browser"),
    "tests.fixtures.console",
    "src.testing.plugin",
    *("tests.fixtures.durations", "tests.fixtures.standbys", "tests.fixtures.replicas"),
]

_OURS = (
    *("DATABASE_", "AUTH_", "STRIPE_", "AWS_", "API_", "LOG_", "FLASHSLIDES_", "PROMETHEUS_"),
    "OTEL_",
    *("CREDIT_", "CREDITS_", "CHECKOUT_", "CONSOLE_"),
)
COLLECTED_AFTER = 10_000
"""New objects after which the collector looks for what nobody can reach any more."""


def pytest_configure(config: pytest.Config) -> None:
    """Forget the caller's configuration: the tests' own is the only one."""
    from src.common.settings import Settings

    config.option.testrunuid = config.option.testrunuid or uuid.uuid4().hex
    for name in list(os.environ):
        if name in {"ENV", "SHARDING", "WEB_CONCURRENCY"} or name.startswith(_OURS):
            del os.environ[name]
    os.environ["ENV"] = "local"
    # The hundreds of processes that tests start would each compile all that they import.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # What a shell starts in the background ignores Ctrl-C, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("patient", deadline=None)  # whatever else the machine does
    hypothesis.settings.load_profile("patient")
    Settings.model_config["env_file"] = None  # tests/settings, which are about it, put it back


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are there to stay: the collector looks at none of them again.

    It would take a seventh of the workers' CPU, most of it for these and for imported modules.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECTED_AFTER)
        gc.enable()


@pytest.fixture(autouse=True)
def environment_of_this_test(pytestconfig: pytest.Config) -> Generator[None]:
    """What a test made of the environment is no other's: neither variables nor settings read."""
    from src.common.settings import get_settings
    from tests.fixtures.databases import environment_of_the_run

    before = _environment()
    yield
    get_settings.cache_clear()
    after = _environment()
    before |= environment_of_the_run(pytestconfig)
    if after != before:
        os.environ.clear()
        os.environ.update(before)
        changed = sorted(dict(before.items() ^ after.items()))
        pytest.fail(f"this test changes variables of the environment for others: {changed}")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="session")
def testrun_uid(request: pytest.FixtureRequest) -> str:
    """The same for every worker, and, unlike xdist's own, for a run without workers too."""
    return _run_of(request.config)


def _run_of(config: pytest.Config) -> str:
    given = getattr(config, "workerinput", {}).get("testrunuid") or config.option.testrunuid
    return str(given)
