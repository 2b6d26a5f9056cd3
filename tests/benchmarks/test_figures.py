"""The arithmetic of benchmarks/figures.py and the comparison of benchmarks/books.py."""

from dataclasses import replace

import pytest

from benchmarks.books import Books, BooksDisagree, check
from benchmarks.contestants.base import CREDITS
from benchmarks.figures import PerRepetition, median_of, percentile, ratios, summarise


def books_of(rows: int) -> Books:
    """Books in which so many operations are written as they should be."""
    credits_ = rows * CREDITS
    return Books(
        rows=rows,
        credits_added=credits_,
        balances=credits_,
        entries=rows,
        credits_in_entries=credits_,
        credits_in_lots=credits_,
    )


def repetition(rate: float) -> PerRepetition:
    """A repetition in which nothing but the rate matters."""
    return PerRepetition(rate, 1, 2, 3, 4, 0)


def test_a_percentile_is_the_smallest_value_that_reaches_the_share() -> None:
    """Nearest rank: an observed value, never an interpolated one, in whatever order they came."""
    values = [float(value) for value in range(100, 0, -1)]

    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1) == 100
    assert percentile([3.0, 1.0], 0.01) == 1


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0), ([1.0], 1.01)])
def test_a_percentile_of_nothing_or_beyond_all_is_refused(
    values: list[float], share: float
) -> None:
    """No values, or a share outside (0, 1], has no answer."""
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_a_median_comes_with_its_least_and_greatest() -> None:
    """What is printed as a spread is the whole of it, outliers included."""
    summary = median_of([5.0, 1.0, 100.0, 4.0])

    assert (summary.median, summary.least, summary.greatest) == (4.5, 1, 100)


def test_a_median_of_nothing_is_refused() -> None:
    """Without a single repetition there is no figure."""
    with pytest.raises(ValueError, match="median"):
        median_of([])


def test_ratios_need_the_same_repetitions_on_both_sides() -> None:
    """A repetition that only one contestant ran is compared with nothing."""
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_the_ratio_is_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    """A machine that slows down for a repetition slows both sides of that repetition's ratio."""
    reference = [repetition(1000), repetition(100), repetition(2000)]
    ours = [repetition(500), repetition(50), repetition(200)]

    summary = summarise(ours, reference)

    assert summary.operations_per_second.median == 200  # the ratio of medians would be 0.2
    assert (summary.ratio.median, summary.ratio.least, summary.ratio.greatest) == (0.5, 0.1, 0.5)


def test_books_that_agree_pass() -> None:
    """Rows, credits and balances that moved by what was acknowledged are accepted."""
    check(books_of(2), books_of(5), acknowledged=3)


@pytest.mark.parametrize(
    "off",
    [
        {"rows": 2},
        {"rows": 4},
        {"credits_added": 3 * CREDITS - 1, "balances": 3 * CREDITS - 1},
        {"balances": 2 * CREDITS},
        {"entries": 2},
        {"entries": 4},
        {"credits_in_entries": 2 * CREDITS},
        {"credits_in_lots": 3 * CREDITS - 1},
    ],
    ids=[
        "a row less",
        "a row more",
        "a credit less",
        "a lost update",
        "an entry less",
        "an entry more",
        "an entry of another amount",
        "a credit missing in a lot",
    ],
)
def test_books_that_disagree_are_refused(off: dict[str, int]) -> None:
    """Each of the sums, being off alone, is enough to refuse the figures."""
    with pytest.raises(BooksDisagree):
        check(books_of(0), replace(books_of(3), **off), acknowledged=3)
