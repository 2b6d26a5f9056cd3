"""The one error of this package, and the sentences for what the operating system refuses."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class LocalPostgresError(Exception):
    """The embedded PostgreSQL cannot do what was asked; the message tells a person what to do."""


@contextmanager
def explained(folder: Path) -> Generator[None]:
    """Turn an OSError met while working in `folder` into a sentence.

    Raises:
        LocalPostgresError: for every OSError inside the block.
    """
    try:
        yield
    except OSError as error:
        raise LocalPostgresError(_sentence(error, folder)) from error


def _sentence(error: OSError, folder: Path) -> str:
    place = error.filename or folder
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"The disk is full: {place} could not be written. "
            f"Make room where {folder} lies, then try again."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return (
            f"{place} may not be used by this account ({error.strerror}). Make {folder} writable "
            f"for it, or name another data folder in FLASHSLIDES_DATA_DIR."
        )
    return f"The data folder {folder} cannot be used: {error.strerror} ({place})."
