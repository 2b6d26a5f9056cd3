"""The endpoints, one file a subject; and the parameters that several of them take."""

import uuid
from typing import Annotated

from fastapi import Path, Query

from src.common.postgres.pagination import PAGE_SIZE_MAX

API_PREFIX = "/api/v1"

UserId = Annotated[uuid.UUID, Path(description="The user the request is about.")]
Cursor = Annotated[
    str | None,
    Query(max_length=200, description="`next_cursor` of the page before; left out: page one."),
]
Limit = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="The most items on a page.")]
