"""The arithmetic of the figures, what is required of them, and how the books are compared."""

import pytest

from benchmarks.books import Books, BooksDisagree, check
from benchmarks.contestants.base import Load, Spread
from benchmarks.figures import PerRepetition, median_of, percentile, ratios
from benchmarks.growth import Growth
from benchmarks.required import checked
from benchmarks.results import Case, Measured
from benchmarks.runner import Measurement


def repetition(rate: float, p99_ms: float = 2) -> PerRepetition:
    """A repetition in which little but the rate matters."""
    return PerRepetition(rate, 1, p99_ms, 3, 0, 4, 0)


def measured(**rates: list[float]) -> Measured:
    """A run of uniform users and 32 callers, with these rates in its repetitions."""
    load = Load(Spread.UNIFORM, 100, 32, 1)
    return Measured(
        [
            Measurement(name.replace("_", "-"), load, number, 10, 0, {}, repetition(rate))
            for name, each in rates.items()
            for number, rate in enumerate(each)
        ]
    )


def case(name: str) -> Case:
    """A contestant under the load of `measured`."""
    return Case(name, Spread.UNIFORM, 32)


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
    run = measured(engine=[500, 50, 200], document_sql=[1000, 100, 2000])

    ratio = run.ratio(case("engine"), case("document-sql"))

    assert ratio is not None  # the ratio of medians would be 0.2
    assert (ratio.median, ratio.least, ratio.greatest) == (0.5, 0.1, 0.5)


def test_the_best_reference_is_chosen_in_each_repetition() -> None:
    """Whoever was fastest just then, so that no reference has its bad moment counted."""
    run = measured(engine=[100, 100], hf_nostro=[10, 50], credit_ledger=[20, 25])

    ratio = run.ratio_to_best(case("engine"), [case("hf-nostro"), case("credit-ledger")])

    assert ratio is not None
    assert (ratio.least, ratio.greatest) == (2, 5)


@pytest.mark.parametrize(("rate", "reached"), [(1500, True), (1499, False)])
def test_a_requirement_is_reached_at_its_bound_and_not_below(rate: float, reached: bool) -> None:  # noqa: FBT001  a parametrised answer
    """32 callers of the engine need 1.5 of the document's statements; nothing else was measured."""
    lines = checked(measured(engine=[rate], document_sql=[1000]), Growth())

    assert lines[0].reached is reached
    assert {line.reached for line in lines[1:]} == {None}


def test_books_that_agree_pass() -> None:
    """Rows that grew by what was acknowledged and is no replay, and equal sums, are accepted."""
    check(Books(2, (14, 14), (2, 2)), Books(5, (35, 35), (5, 5)), acknowledged=4, unwritten=1)


@pytest.mark.parametrize(
    "after",
    [
        Books(4, (35, 35), (4, 4)),
        Books(6, (35, 35), (6, 6)),
        Books(5, (35, 34), (5, 5)),
        Books(5, (35, 35), (5, 4)),
    ],
    ids=["a row less", "a row more", "a credit less", "an entry not counted"],
)
def test_books_that_disagree_are_refused(after: Books) -> None:
    """Each of the sums, being off alone, is enough to refuse the figures."""
    with pytest.raises(BooksDisagree):
        check(Books(2, (14, 14), (2, 2)), after, acknowledged=4, unwritten=1)
