"""A collector for tests: takes OTLP over gRPC or HTTP and prints what it gets, one JSON object a line.

    otlp_receiver.py grpc|http take|refuse|hang

The first line is the port on 127.0.0.1. `take` acknowledges everything; `refuse` answers that it is not available (UNAVAILABLE,
503); `hang` takes connections and never answers. It ends with its standard input.
"""

import json
import os
import socket
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

# Signal: request, response, servicer, and what adds it to a server.
SIGNALS = {
    "traces": (
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
        trace_service_pb2_grpc.TraceServiceServicer,
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
    ),
    "metrics": (
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
        metrics_service_pb2_grpc.MetricsServiceServicer,
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
    ),
    "logs": (
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
        logs_service_pb2_grpc.LogsServiceServicer,
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
    ),
}

printing = threading.Lock()


def tell(signal, request, headers):
    line = json.dumps({"signal": signal, "headers": headers, "message": MessageToDict(request)})
    with printing:
        print(line, flush=True)


def serve_grpc(refuses):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    for signal, (_, response, servicer, add) in SIGNALS.items():

        def export(self, request, context, signal=signal, response=response):
            if refuses:
                context.abort(grpc.StatusCode.UNAVAILABLE, "refused, as it was told to")
            tell(signal, request, dict(context.invocation_metadata()))
            return response()

        add(type(signal, (servicer,), {"Export": export})(), server)
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
        if self.server.refuses:
            self.send_error(503)
            return
        request, response, _, _ = SIGNALS[signal]
        tell(signal, request.FromString(body), {key.lower(): value for key, value in self.headers.items()})
        answer = response().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve_http(refuses):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.refuses = refuses
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port, server


def hang(_refuses):
    # The kernel takes connections; nobody reads from them.
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    return listener.getsockname()[1], listener


def main():
    protocol, mode = sys.argv[1:]
    serve = hang if mode == "hang" else {"grpc": serve_grpc, "http": serve_http}[protocol]
    port, _server = serve(mode == "refuse")
    print(port, flush=True)
    sys.stdin.read()
    with printing:
        os._exit(0)


main()
