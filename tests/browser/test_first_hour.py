"""The first hour of a stranger: from `git clone` to a charged endpoint of their own."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from src.local_postgres import free_port
from tests.cli.processes import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
CHARGING = "docs/how-to/charge-an-endpoint.md"
BLOCK = re.compile(r"^```(?:bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Stranger:
    """Somebody with a home that was empty, an environment that says nothing of us, and a clone."""

    clone: Path
    environment: Mapping[str, str]
    address: str

    @property
    def log(self) -> Path:
        """What was said in the terminals that served."""
        return self.clone.parent / "serve.log"

    def blocks(self, page: str) -> list[str]:
        """What a page of the documentation tells to type, for the port that is free here."""
        text = (self.clone / page).read_text()
        return [each.replace("http://localhost:8000", self.address) for each in BLOCK.findall(text)]

    def types(self, block: str) -> str:
        """Run a block as it stands; what it printed."""
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", block],
            capture_output=True,
            text=True,
            cwd=self.clone,
            env=dict(self.environment),
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self, command: str, ready: str) -> Generator[None]:
        """Run a block that serves, in a terminal of its own, until Ctrl-C."""
        port = self.address.rpartition(":")[2]
        with self.log.open("a") as output:
            process = subprocess.Popen(
                ["/bin/bash", "-euo", "pipefail", "-c", f"{command.strip()} --port {port}"],
                stdout=output,
                stderr=output,
                cwd=self.clone,
                env=dict(self.environment),
                start_new_session=True,
            )

        def ask() -> None:
            assert process.poll() is None, self.log.read_text()
            httpx.get(f"{self.address}{ready}", trust_env=False).raise_for_status()

        waiting = Retrying(
            retry=retry_if_exception_type(httpx.HTTPError),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(PATIENCE_SECONDS),
        )
        try:
            waiting(ask)
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all of them
            process.wait(PATIENCE_SECONDS)


@pytest.fixture
def stranger() -> Generator[Stranger]:
    """What is committed here, cloned; all that it needs is fetched anew."""
    folder = Path(tempfile.mkdtemp(prefix="fs-")).resolve()
    folder.chmod(0o755)
    home, clone = folder / "home", folder / "flashslides"
    home.mkdir()
    (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
    ours = {"VIRTUAL_ENV", "ENV", "COVERAGE_PROCESS_START", "PYTHONPATH"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("DATABASE_", "XDG_", "PYTEST_", "UV_CACHE"))
    } | {
        "HOME": str(home),
        "FLASHSLIDES_DATA_DIR": str(folder / "data"),
        "FLASHSLIDES_PG_PORT": str(free_port()),
    }
    subprocess.run(
        [shutil.which("git") or "git", "clone", "--quiet", str(ROOT), str(clone)],
        env=environment,
        check=True,
    )
    yield Stranger(clone, environment, f"http://localhost:{free_port()}")
    shutil.rmtree(folder)


@pytest.mark.xdist_group("embedded servers")
def test_from_git_clone_to_a_charged_endpoint_of_ones_own(stranger: Stranger, page: Page) -> None:
    """All of it as the pages say; what is bought, by mouse: declined, paid, refunded, left."""
    serve, _test, first_success, *_ = stranger.blocks("README.md")
    until_the_pay_page = first_success.partition("# Open that page")[0]
    with stranger.serving(serve, "/readyz"):
        page.goto(stranger.types(until_the_pay_page).splitlines()[-1])
        expect(page.get_by_role("main")).to_contain_text("ada@example.com")
        _is_declined_then_pays(page)
        _looks_at_what_was_bought(page)
        page.get_by_role("button", name="Buy again").click()
        page.get_by_role("button", name="Back to the shop").click()
        expect(page.get_by_role("heading")).to_have_text("You left the pay page")
        page.get_by_role("link", name="Back to FlashSlides").click()
        page.get_by_role("link", name="docs", exact=True).click()
        expect(page.get_by_text("/api/v1/create-checkout-session")).to_be_visible()
    shop, *_ = (each for each in stranger.blocks(CHARGING) if "def render" in each)
    charged_serve, ask = (each for each in stranger.blocks(CHARGING) if each.startswith("uv run"))
    (stranger.clone / "shop.py").write_text(shop)
    with stranger.serving(charged_serve, "/openapi.json"):
        printed = stranger.types(ask)
    assert "idempotent-replayed: true" in printed
    assert printed.count(" -10 ") == 1
    assert "Traceback" not in stranger.log.read_text()


def _is_declined_then_pays(page: Page) -> None:
    declined = page.get_by_role("radio", name="declined (4000 0000 0000 0002)")
    declined.check()
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("alert")).to_contain_text("declined")
    expect(declined).to_be_checked()
    page.get_by_role("radio", name="4242 4242 4242 4242").check()
    page.get_by_role("button", name="Pay").click()
    expect(page.get_by_role("heading")).to_have_text("Thank you, your credits are here")


def _looks_at_what_was_bought(page: Page) -> None:
    """The balance before and after; a refund at the offline Stripe, and the page again."""
    after = page.get_by_role("definition")
    expect(after.filter(has_text=re.compile("^0$"))).to_be_visible()
    expect(after.filter(has_text=re.compile("^500$")).first).to_be_visible()
    page.get_by_role("link", name="Refund it").click()
    page.get_by_role("button", name="Refund").click()
    expect(page.get_by_role("main")).to_contain_text("efunded")
    page.go_back()
    page.go_back()
    expect(page.get_by_role("heading")).to_have_text("Thank you, your credits are here")
