"""What switches tracing on; off, nothing of the SDK is imported; the page's variables work."""

import re
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stripe
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.util._once import Once

from src.common import trace_export, tracing
from src.common.exceptions import SettingsError
from src.common.stripe.gateway import Gateway
from src.common.stripe.gateway_errors import StripeGatewayError
from tests.fixtures.api import StartApi
from tests.tracing.test_spans import Spans, named

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/trace-requests.md").read_text(encoding="utf-8")
IMPORTED = """
import sys
from src.common import tracing
{imports}
tracing.start()
print([name for name in sys.modules if name.startswith({prefixes})])
"""


@pytest.mark.parametrize(
    ("variables", "is_wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "api"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_the_standard_s_variables_are_the_switch(
    variables: dict[str, str], *, is_wanted: bool
) -> None:
    """A place to send traces to, unless they are forbidden."""
    assert tracing.is_wanted(variables) is is_wanted


@pytest.mark.parametrize(
    ("imports", "prefixes"),
    [
        ("import src.cli.commands, src.common.credits.ledger", ("opentelemetry",)),
        (
            "import src.api.src.main, src.common.credits.engine.engine",
            ("opentelemetry.sdk", "opentelemetry.instrumentation", "opentelemetry.exporter",
             "src.common.trace_export"),
        ),
    ],
)  # fmt: skip
def test_off_nothing_of_it_is_imported(imports: str, prefixes: tuple[str, ...]) -> None:
    """By commands nothing at all; by the API what FastAPI imports itself, and no SDK."""
    program = IMPORTED.format(imports=imports, prefixes=prefixes)
    told = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert told == "[]\n"


def test_off_there_is_no_span() -> None:
    """And no link, and nothing for the logs."""
    with tracing.span("x") as made:
        assert made is None
    assert tracing.begin("x", []) is None
    assert (tracing.current_span(), tracing.current_ids()) == (None, {})


def test_without_the_packages_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than to serve without the traces that were asked for."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.delitem(sys.modules, "src.common.trace_export")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"install flashslides\[otel\]"):
        tracing.start()
    assert not tracing.is_on()


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_what_is_not_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """By name, with what there is."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name} is {value}: only "):
        trace_export.open_exporter()


async def test_a_call_to_stripe_is_a_span(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of the call; a failing one by its type, without a word of Stripe's."""
    client = stripe.StripeClient("sk_test_1")
    tracing.start()

    async def answer(*_given: object, **_options: object) -> stripe.Refund:
        return stripe.Refund.construct_from({"id": "re_1"}, "sk_test_1")

    async def refuse(*_given: object, **_options: object) -> stripe.Refund:
        raise stripe.InvalidRequestError("No such customer: ada@example.com", "customer")  # type: ignore[no-untyped-call]  # of an untyped library

    gateway = Gateway(client, 5)
    call = gateway._call  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the one place through which all go
    monkeypatch.setattr(answer, "__qualname__", "RefundService.create_async")
    await call(answer, {})
    with pytest.raises(StripeGatewayError):
        await call(refuse, {})
    [well] = named(spans(), "Stripe RefundService.create_async")
    assert well.kind is trace.SpanKind.CLIENT
    [failed] = [each for each in spans() if not each.status.is_ok and not each.status.is_unset]
    assert (failed.attributes or {})["error.type"] == "STRIPE_GATEWAY_ERROR"
    assert "ada" not in failed.to_json()


@pytest.fixture
def collector() -> Generator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP receiver: its address, and what it has been sent."""
    received: list[ExportTraceServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        serving.join()


async def test_the_page_s_variables_send_traces_to_a_collector(
    collector: tuple[str, list[ExportTraceServiceRequest]],
    start_api: StartApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the SDK's own exporter, under the service's name; the last ones at the end."""
    address, received = collector
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    [block] = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    variables = dict(re.findall(r"^export (\w+)=(\S+)$", block, re.MULTILINE))
    assert variables.keys() == {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"}
    api = await start_api(**variables | {"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    await api.client.get("/livez")
    tracing.stop()
    [resource] = {
        value.value.string_value
        for each in received
        for spans in each.resource_spans
        for value in spans.resource.attributes
        if value.key == "service.name"
    }
    assert resource == variables["OTEL_SERVICE_NAME"]
    sent = [
        span.name
        for each in received
        for spans in each.resource_spans
        for scope in spans.scope_spans
        for span in scope.spans
    ]
    assert "GET /livez" in sent
