"""Reads that may lag, over HTTP: what a client asks for, and what an answer says of itself.

`?read=replica` lets a replica answer. `X-Read-After` keeps it from showing a user's books older
than the client has seen them; answers that tell of a newer version carry that header, to be sent
back as it is.
"""

import re
from typing import Annotated

from fastapi import Depends, Header, Query

from src.api.src.routes import UserId
from src.common.async_replicas import AsyncReader
from src.common.postgres.lagging_reads import ReadAfter, ReadFrom, Source

READ_AFTER = "X-Read-After"
READ_FROM = "X-Read-From"
READ_AS_OF = "X-Read-As-Of"
READ_LAG = "X-Read-Lag-Seconds"
_VERSION = r'^(W/)?"?([0-9]{1,10})(-[0-9a-f]+)?"?$'

Read = Annotated[
    Source,
    Query(
        alias="read",
        description="`replica`: an answer may be some seconds old, and says so in `X-Read-From`, "
        "`X-Read-As-Of` and `X-Read-Lag-Seconds`. The primary answers where no replica can.",
    ),
]
_After = Annotated[
    str | None,
    Header(
        alias=READ_AFTER,
        pattern=_VERSION,
        max_length=100,
        description="With `read=replica`: show nothing older than this version of the user's "
        "books. It is the `X-Read-After` of an earlier answer, the `ETag` of a balance, or a "
        "`version` or `seq`.",
    ),
]


async def _reader_of_user(
    user_id: UserId, read: Read = Source.PRIMARY, read_after: _After = None
) -> AsyncReader:
    found = None if read_after is None else re.match(_VERSION, read_after)
    after = None if found is None else ReadAfter(user_id, int(found[2]))
    return AsyncReader(read, after)


ReaderOfUser = Annotated[AsyncReader, Depends(_reader_of_user)]
"""Who may answer what is asked of the path's user."""


def headers_of(read_from: ReadFrom) -> dict[str, str]:
    """What an answer says of who gave it; nothing where nobody asked."""
    if read_from.source is Source.PRIMARY and read_from.because is None:
        return {}
    headers = {READ_FROM: str(read_from.source)}
    if read_from.source is Source.REPLICA and read_from.as_of is not None:
        headers[READ_AS_OF] = read_from.as_of.isoformat().replace("+00:00", "Z")
        headers[READ_LAG] = f"{read_from.lag_seconds:.3f}"
    return headers
