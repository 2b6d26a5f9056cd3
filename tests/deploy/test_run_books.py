"""Every alert has its page, every page an alert; each ends in a command of the doctor's."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.metrics_page import RULES
from src.common.doctor.catalogue import CHECKS
from tests.deploy.test_alerts import ALERTS, PROMTOOL, with_promtool

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.stem: path for path in (DOCS / "how-to/alerts").glob("*.md") if path.stem != "index"}
INDEX = (DOCS / "how-to/alerts/index.md").read_text(encoding="utf-8")
WATCH = (DOCS / "how-to/watch-with-prometheus.md").read_text(encoding="utf-8")
LAST = re.compile(r"`flashslides doctor ([a-z -]+)`\n\Z")


def test_every_alert_names_a_page_of_its_own() -> None:
    """Whose title is the alert; and there is no page without an alert."""
    named = {rule["annotations"]["runbook"]: alert for alert, rule in ALERTS.items()}
    assert named.keys() == {f"how-to/alerts/{name}" for name in PAGES}
    for page, alert in named.items():
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {alert}\n"), page


def test_the_list_of_alerts_has_all_in_the_order_of_the_rules() -> None:
    """With a link each."""
    listed = re.findall(r"^\| \[(\w+)\]\((.+)\.md\) \|", INDEX, re.MULTILINE)
    assert listed == [
        (alert, rule["annotations"]["runbook"].rpartition("/")[2]) for alert, rule in ALERTS.items()
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_ends_in_a_command_of_the_doctor_s(name: str) -> None:
    """Which looks at what the alert was about, by names that there are."""
    found = LAST.search(PAGES[name].read_text(encoding="utf-8"))
    assert found is not None
    assert set(found[1].split()) - {check.name for check in CHECKS} == set()


def test_the_page_s_scrape_is_the_file_s() -> None:
    """But for comments."""
    [shown] = re.findall(r"^```yaml\n(.*?)^```", WATCH, re.DOTALL | re.MULTILINE)
    configuration = yaml.safe_load((RULES.parent / "prometheus.yml").read_text(encoding="utf-8"))
    assert yaml.safe_load(shown) == {"scrape_configs": configuration["scrape_configs"]}


@with_promtool
def test_the_page_s_command_checks_a_copy(tmp_path: Path) -> None:
    """As it is written."""
    assert PROMTOOL is not None
    [command] = re.findall(r"^```bash\n(.*?)^```", WATCH, re.DOTALL | re.MULTILINE)
    shutil.copy(RULES, tmp_path)
    done = subprocess.run(
        ["/bin/bash", "-euc", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
