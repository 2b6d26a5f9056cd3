"""What a panel of the dashboard is, and how its expressions ask for our metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

HERE = 'job="flashslides", instance=~"$instance"'
RATE = "$__rate_interval"
WEBHOOK = 'route=~"/api/v1/(stripe-)?webhook/?"'

Step = tuple[float | None, str]
BAD_ABOVE_0: tuple[Step, ...] = ((None, "green"), (1, "red"))


@dataclass(frozen=True)
class Panel:
    """One panel; `shows` are its expressions with their names in the legend.

    A row is 24 columns wide. From the second step on a value is not as it should be.
    """

    title: str
    meaning: str
    unit: str
    shows: Sequence[tuple[str, str]]
    width: int = 8
    kind: str = "timeseries"
    steps: tuple[Step, ...] = ((None, "green"),)
    is_stacked: bool = False
    most: float | None = None


def newest(name: str) -> str:
    """A figure of the database, which every instance tells."""
    return f"max({name}{{{HERE}}})"


def rate(name: str, by: str, more: str = "") -> str:
    """By these labels, of all instances."""
    return f"sum by ({by}) (rate({name}{{{HERE}{more}}}[{RATE}]))"


def quantile(share: float, name: str, more: str = "", by: str = "le") -> str:
    """Of a histogram: below which such a share of its values is."""
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', by, more)})"


def mean(name: str) -> str:
    """The mean of a histogram or summary."""
    return f"{rate(f'{name}_sum', 'job')} / {rate(f'{name}_count', 'job')}"


def share_of_pools_in_use() -> str:
    """Of each pool, from 0 to 1."""
    in_use, limit = (
        f'flashslides_database_pool_connections{{{HERE}, state="{state}"}}'
        for state in ("in_use", "limit")
    )
    return f"{in_use} / ignoring (state) {limit}"


def quantiles(name: str, more: str = "") -> list[tuple[str, str]]:
    """Those that are shown of a histogram, with their names."""
    return [(quantile(share / 100, name, more), f"p{share}") for share in (50, 95, 99)]


def stat(title: str, meaning: str, unit: str, expression: str, *steps: Step) -> Panel:
    """A number; without steps more than 0 is wrong."""
    return Panel(title, meaning, unit, [(expression, title)], 4, "stat", steps or BAD_ABOVE_0)
