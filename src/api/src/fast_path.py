"""Routes that skip the framework's machinery where a request is plainly right.

FastAPI declares and documents the endpoint. It also serves every request that is not plainly right,
so that each default and each error stays FastAPI's and is written once. What the fast path accepts,
the ordinary one accepts with the same values: it only decides sooner (decision 0018).
"""

import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, get_args, get_origin, runtime_checkable

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON = {"application/json", "application/json; charset=utf-8"}
"""How clients write it; FastAPI reads every other spelling."""


@runtime_checkable
class AtHand(Protocol):
    """A dependency that often needs no look-up to give its value."""

    async def at_hand(self, request: Request) -> object | None:
        """What the dependency would give; None where it would have to look it up, or may refuse.

        Raises:
            ValueError: as good as None.
        """
        ...


class FastPathRoute(APIRoute):
    """An endpoint of a dependency `AtHand`, a JSON body and any path parameters.

    To be routed by the application itself, not by an included router: there, FastAPI wraps the
    endpoint anew and matches each request twice.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._ordinary: ASGIApp = self.app
        self._dependencies: dict[str, AtHand] = {}
        self._path_parameters: dict[str, TypeAdapter[Any]] = {}
        bodies: dict[str, TypeAdapter[Any]] = {}
        for name, parameter in inspect.signature(endpoint, eval_str=True).parameters.items():
            dependency = _dependency_of(parameter.annotation)
            if dependency is not None:
                self._dependencies[name] = dependency
            elif name in self.param_convertors:
                self._path_parameters[name] = TypeAdapter(parameter.annotation)
            else:
                bodies[name] = TypeAdapter(parameter.annotation)
        ((self._body_name, self._body),) = bodies.items()  # one, or this is no route for us
        self.app = self._serve

    async def _serve(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        messages = [message async for message in _until_the_body_ends(receive)]
        arguments = await self._arguments(Request(scope), messages)
        if arguments is None:
            await self._ordinary(scope, _replaying(messages, receive), send)
            return
        response = await self.endpoint(**arguments)
        await response(scope, receive, send)

    async def _arguments(
        self, request: Request, messages: "list[Message]"
    ) -> dict[str, Any] | None:
        """The endpoint's arguments, or None where FastAPI has to look at the request."""
        if messages[-1]["type"] != "http.request":  # the client has left
            return None
        if request.headers.get("content-type") not in _JSON:
            return None
        arguments: dict[str, Any] = {}
        try:
            for name, dependency in self._dependencies.items():
                arguments[name] = await dependency.at_hand(request)
                if arguments[name] is None:
                    return None
            for name, parameter in self._path_parameters.items():
                arguments[name] = parameter.validate_python(request.path_params[name])
            body = b"".join(message.get("body", b"") for message in messages)
            # As FastAPI reads it: pydantic's own JSON parser differs at the edges.
            arguments[self._body_name] = self._body.validate_python(json.loads(body))
        except (ValueError, RecursionError):  # no JSON, or not what we ask for
            return None
        return arguments


class FastReadRoute(APIRoute):
    """An endpoint of one dependency `AtHand` and nothing else; of the request's body it reads none.

    To be routed by the application itself as well.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._ordinary: ASGIApp = self.app
        ((self._name, parameter),) = inspect.signature(endpoint, eval_str=True).parameters.items()
        dependency = _dependency_of(parameter.annotation)
        if dependency is None:
            raise TypeError(f"{self._name} is no dependency")
        self._dependency = dependency
        self.app = self._serve

    async def _serve(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        try:
            given = await self._dependency.at_hand(Request(scope))
        except ValueError:
            given = None
        if given is None:
            await self._ordinary(scope, receive, send)
            return
        response = await self.endpoint(**{self._name: given})
        await response(scope, receive, send)


def _dependency_of(annotation: object) -> AtHand | None:
    if get_origin(annotation) is not Annotated:
        return None
    for extra in get_args(annotation)[1:]:
        if isinstance(extra, params.Depends):
            if not isinstance(extra.dependency, AtHand):
                raise TypeError(f"{extra.dependency} has no at_hand()")
            return extra.dependency
    return None


async def _until_the_body_ends(receive: "Receive") -> AsyncIterator["Message"]:
    is_more_to_come = True
    while is_more_to_come:
        message = await receive()
        is_more_to_come = message.get("more_body", False)
        yield message


def _replaying(messages: "list[Message]", receive: "Receive") -> "Receive":
    """A `receive` that begins with messages which were taken from it already."""
    waiting = iter(messages)

    async def receive_again() -> "Message":
        return next(waiting, None) or await receive()

    return receive_again
