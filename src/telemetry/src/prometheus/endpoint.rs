//! The endpoint on loopback from which Prometheus scrapes a run's metrics.
//!
//! Its descriptors and memory are the launcher's, which needs them to start ranks: whoever asks gets one answer a connection, in a
//! bounded time, and few are served at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::render;
use crate::meter::Meter;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Connections at once; others wait in the kernel.
const CONNECTIONS: usize = 16;
/// For a connection from its begin to its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where no connection can be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes a port of the loopback interface; 0 takes a free one.
pub fn listen(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Answers scrapes for as long as the runtime lives.
pub async fn serve(listener: TcpListener, meter: Meter, resource: Vec<(String, String)>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let resource = Arc::new(resource);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    // Nobody closes the semaphore.
    while let Ok(permit) = connections.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // One that went away before its turn.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            // No descriptors left: later ones may be free again.
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        let (meter, resource) = (meter.clone(), resource.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answer(&request, &meter, &resource);
            async move { response }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // Whoever asked may go away at any time, or never read the answer.
            let _ = timeout(PATIENCE, connection).await;
            drop(permit);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    meter: &Meter,
    resource: &[(String, String)],
) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    let response = Response::builder();
    let (response, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let body = render(&meter.reading(), resource);
            (response.header(CONTENT_TYPE, TEXT), body)
        }
        (&Method::GET | &Method::HEAD, _) => (
            response.status(StatusCode::NOT_FOUND),
            "the metrics are at /metrics\n".to_owned(),
        ),
        _ => (
            response
                .status(StatusCode::METHOD_NOT_ALLOWED)
                .header(ALLOW, "GET, HEAD"),
            String::new(),
        ),
    };
    response.body(Full::new(Bytes::from(body)))
}
