"""Refuses query parameters that an endpoint does not have: a misspelt filter would filter nothing.

Bodies do the same (`schemas/bodies.py`). Nobody needs to be known for it: the documentation says as
much to everybody.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

_EVERYWHERE = "read"
"""Clients may send it with whatever they read: what must not lag comes from the primary anyway."""


async def _refuse_unknown(request: Request) -> None:
    route = request.scope["route"]
    assert isinstance(route, APIRoute)  # noqa: S101  a dependency of an endpoint
    known = {_EVERYWHERE, *_parameters_of(route.dependant)}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise RequestValidationError(
            [
                {
                    "type": "extra_forbidden",
                    "loc": ("query", name),
                    "msg": f"Not a parameter of this endpoint; it has {', '.join(sorted(known))}",
                }
                for name in unknown
            ]
        )


def _parameters_of(dependant: "Dependant") -> Iterator[str]:
    """The names of the query's parameters, those of dependencies included."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for each in dependant.dependencies:
        yield from _parameters_of(each)


KNOWN_PARAMETERS_ONLY = Depends(_refuse_unknown)
"""For routers whose endpoints read: 422 names each parameter that is unknown."""
