"""`verify --anchors`: compares entries with checkpoints, and prints what does not fit."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from src.cli.output import print_rows, progress, say
from src.cli.reach import get_settings
from src.cli.users import id_of
from src.cli.whose import routed_to_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from src.common.anchors.comparison import AnchorVerification
    from src.common.anchors.findings import AnchorReport


def open_anchors(source: str, public_keys: "Sequence[str] | None") -> "AnchorVerification":
    """What is to be compared with the checkpoints of a source; nothing is read yet.

    Raises:
        Invalid, SettingsError: the source, or whose signatures to believe, is not acceptable.
    """
    from src.common.anchors.comparison import AnchorVerification
    from src.common.anchors.configuration import believed_keys, open_sink
    from src.common.database import SessionLocal

    settings = get_settings()
    keys = believed_keys(settings, public_keys or ())
    return AnchorVerification(SessionLocal, open_sink(source, settings), keys)


def compare_with_anchors(verification: "AnchorVerification", user: str | None) -> "AnchorReport":
    """Compare everybody, or this user, with the checkpoints.

    Raises:
        SinkUnavailable: the source cannot be read.
    """
    report = verification.report
    with routed_to_user(user):
        user_ids = None if user is None else [id_of(user)]
    with progress() as bars:
        read = bars.add_task("Checkpoints read", total=None)
        compared = bars.add_task("Users compared", total=None)
        for _ in verification.run(user_ids):
            bars.update(read, completed=report.checkpoints)
            bars.update(compared, completed=report.users, total=verification.users or None)
    return report


def print_compared(report: "AnchorReport") -> None:
    """For people: what does not fit, or that all does."""
    if report.findings:
        rows = [asdict(each) for each in report.first]
        say("")
        print_rows(rows, as_json=False, empty="")
        say(
            f"\nThis does not fit the anchors: {report.findings} findings; the first "
            f"{len(report.first)} are shown."
        )
        return
    say(
        f"All entries fit the anchors. Checkpoints: {report.first_checkpoint} to "
        f"{report.last_checkpoint}; users compared: {report.users}."
    )
    later = (report.newest_in_database or 0) - (report.last_checkpoint or 0)
    if later > 0:
        say(f"The database has closed {later} checkpoints since, which this source does not have.")
