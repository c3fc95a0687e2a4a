"""A collector for tests: takes OTLP over gRPC or HTTP and prints what it gets, one JSON object a line.

    otlp_receiver.py grpc|http MODE[:traces|metrics|logs] [CERTIFICATE KEY]

The first line is the port on 127.0.0.1; with a certificate it speaks TLS. It ends with its standard input. How it treats all
requests, or those of one signal (then it takes the others):

    take     acknowledges everything
    hang     never answers; where that is all signals, nothing even reads from the connections
    refuse   takes nothing: UNAVAILABLE, 503
    busy     refuses the first request of a signal, which may be tried again at once, and takes the others
    partial  refuses one span, log record or point of each request, and says why
    full     refuses for good: over gRPC as exhausted, over HTTP with a page of 100 KB
    page     over HTTP: takes everything and answers with a page of 100 KB
    stall    over HTTP: takes everything and never sends the body of its answers
    json     over HTTP: takes everything and answers in JSON
"""

import json
import os
import socket
import ssl
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

# Signal: request, response, what may be refused of it, servicer, and what adds it to a server.
SIGNALS = {
    "traces": (
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans",
        trace_service_pb2_grpc.TraceServiceServicer,
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
    ),
    "metrics": (
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points",
        metrics_service_pb2_grpc.MetricsServiceServicer,
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
    ),
    "logs": (
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records",
        logs_service_pb2_grpc.LogsServiceServicer,
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
    ),
}
PAGE = b"<html>" + b"x" * 100_000

printing = threading.Lock()
refused = set()


def tell(signal, request, headers):
    line = json.dumps({"signal": signal, "headers": headers, "message": MessageToDict(request)})
    with printing:
        print(line, flush=True)


def mode_of(signal):
    """How this request is treated; notes the first one of a busy collector."""
    mode, _, only = sys.argv[2].partition(":")
    if only not in ("", signal):
        return "take"
    if mode == "busy":
        with printing:
            is_first = signal not in refused
            refused.add(signal)
        return mode if is_first else "take"
    return mode


def response_to(signal, mode):
    _, response, rejected, _, _ = SIGNALS[signal]
    answer = response()
    if mode == "partial":
        setattr(answer.partial_success, rejected, 1)
        answer.partial_success.error_message = "over\nquota"
    return answer


def serve_grpc(certificate):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    for signal, (_, _, _, servicer, add) in SIGNALS.items():

        def export(self, request, context, signal=signal):
            mode = mode_of(signal)
            if mode == "hang":
                time.sleep(3600)
            if mode in ("busy", "refuse"):
                context.abort(grpc.StatusCode.UNAVAILABLE, mode)
            tell(signal, request, dict(context.invocation_metadata()))
            if mode == "full":
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
            return response_to(signal, mode)

        add(type(signal, (servicer,), {"Export": export})(), server)
    if certificate:
        chain, key = (open(path, "rb").read() for path in certificate)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # Kept alive by the caller.
    return port, server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signal = self.path.removeprefix("/v1/")
        if signal not in SIGNALS or self.headers["Content-Type"] != "application/x-protobuf":
            self.send_error(404)
            return
        mode = mode_of(signal)
        if mode == "hang":
            time.sleep(3600)
        if mode in ("busy", "refuse"):
            self.answer(503, b"", [("Retry-After", "0")] if mode == "busy" else [])
            return
        request = SIGNALS[signal][0]
        tell(signal, request.FromString(body), {key.lower(): value for key, value in self.headers.items()})
        if mode == "full":
            self.answer(404, PAGE)
        elif mode == "stall":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            time.sleep(3600)
        elif mode == "page":
            self.answer(200, PAGE)
        elif mode == "json":
            self.answer(200, b'{"partialSuccess":{}}')
        else:
            self.answer(200, response_to(signal, mode).SerializeToString())

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in [("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            # Who has seen the status need not read a page.
            self.close_connection = True

    def log_message(self, *_):
        pass


def serve_http(certificate):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port, server


def hang():
    # The kernel takes connections; nobody reads from them.
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    return listener.getsockname()[1], listener


def main():
    protocol, mode, *certificate = sys.argv[1:]
    if mode == "hang":
        port, _server = hang()
    else:
        port, _server = {"grpc": serve_grpc, "http": serve_http}[protocol](certificate)
    print(port, flush=True)
    sys.stdin.read()
    with printing:
        os._exit(0)


main()
