"""Routes that skip the framework's machinery where a request is plainly right.

FastAPI declares and documents the endpoint. It also serves every request that is not plainly right,
so that each default and each error stays FastAPI's and is written once. What the fast path accepts,
the ordinary one accepts with the same values: it only decides sooner (decision 0018).
"""

import inspect
import json
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol, get_args, get_origin, runtime_checkable

from fastapi import params
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.requests import Request

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON = {"application/json", "application/json; charset=utf-8"}
"""How clients write it; FastAPI reads every other spelling."""
_ATTEMPTED = "flashslides.fast_path"
"""In the scope where the fast path was tried before: what it raised, or None."""
_TELEMETRY = "fastapi.telemetry"
"""In the scope where FastAPI makes spans and figures of its own, which its routers name."""


@runtime_checkable
class AtHand(Protocol):
    """A dependency that often needs no look-up to give its value."""

    async def at_hand(self, request: Request) -> object | None:
        """What the dependency would give; None where it would have to look it up, or may refuse.

        Raises:
            ValueError: as good as None.
        """
        ...


class FastRoute(APIRoute):
    """A route that can answer by itself what is plainly right.

    To be routed by the application itself, not by an included router: there, FastAPI wraps the
    endpoint anew and matches each request twice.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._ordinary: ASGIApp = self.app
        self.app = self._serve

    @abstractmethod
    async def attempt(
        self, scope: "Scope", receive: "Receive"
    ) -> tuple["ASGIApp | None", "Receive"]:
        """The answer, or None where FastAPI has to look; and what it then reads the request from.

        Raises:
            Exception: what the endpoint raises.
        """

    async def _serve(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        answer: ASGIApp | None = None
        if _ATTEMPTED not in scope:
            answer, receive = await self.attempt(scope, receive)
        elif (error := scope[_ATTEMPTED]) is not None:
            raise error
        await (answer or self._ordinary)(scope, receive, send)


class FastPathMiddleware:
    """Asks the routes with a fast path before the framework is asked for anything.

    What they do not answer, and what they raise, takes the ordinary way, as if nobody had asked
    them. To be added inside of whatever concerns every request.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app
        self._routes: Sequence[FastRoute] | None = None

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request."""
        route = self._find(scope) if scope["type"] == "http" else None
        if route is not None:
            error: Exception | None = None
            answer: ASGIApp | None = None
            try:
                answer, receive = await route.attempt(scope, receive)
            except Exception as raised:  # noqa: BLE001  an edge: the framework finds its handler
                error = raised
            if answer is not None:
                await answer(scope, receive, send)
                return
            scope[_ATTEMPTED] = error
        await self.app(scope, receive, send)

    def _find(self, scope: "Scope") -> FastRoute | None:
        """The route of a request; the scope says so, as a router's would."""
        if scope.get("root_path") or scope.get(_TELEMETRY) is not None:
            return None  # the framework has more to do
        if self._routes is None:
            routes = scope["app"].routes
            self._routes = [each for each in routes if isinstance(each, FastRoute)]
        path = scope["path"]
        for route in self._routes:
            found = route.path_regex.match(path)
            if found is not None and scope["method"] in (route.methods or ()):
                convertors = route.param_convertors
                scope["path_params"] = {
                    name: convertors[name].convert(value)
                    for name, value in found.groupdict().items()
                }
                scope["route"] = route
                return route
        return None


class FastPathRoute(FastRoute):
    """An endpoint of a dependency `AtHand`, a JSON body and any path parameters."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
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

    async def attempt(
        self, scope: "Scope", receive: "Receive"
    ) -> tuple["ASGIApp | None", "Receive"]:
        """Read the body, and answer what is plainly right."""
        messages = [message async for message in _until_the_body_ends(receive)]
        arguments = await self._arguments(Request(scope), messages)
        if arguments is None:
            return None, _replaying(messages, receive)
        return await self.endpoint(**arguments), receive

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


class FastReadRoute(FastRoute):
    """An endpoint of one dependency `AtHand` and nothing else; it reads no body."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        ((self._name, parameter),) = inspect.signature(endpoint, eval_str=True).parameters.items()
        dependency = _dependency_of(parameter.annotation)
        if dependency is None:
            raise TypeError(f"{self._name} is no dependency")
        self._dependency = dependency

    async def attempt(
        self, scope: "Scope", receive: "Receive"
    ) -> tuple["ASGIApp | None", "Receive"]:
        """Answer what is plainly right."""
        try:
            given = await self._dependency.at_hand(Request(scope))
        except ValueError:
            given = None
        if given is None:
            return None, receive
        return await self.endpoint(**{self._name: given}), receive


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
