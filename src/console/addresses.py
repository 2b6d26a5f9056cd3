"""The address of the page somebody looks at, with another cursor or filter."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from fastapi import Request


def here_with(request: "Request") -> Callable[..., str]:
    """A function that gives this page's address with these fields of its query changed."""

    def address(**changed: object) -> str:
        query = {**request.query_params, **changed}
        path: str = request.scope["path"]
        return f"{path}?{urlencode({name: value for name, value in query.items() if value})}"

    return address
