//! One request of OTLP: protocol buffers posted over HTTP, or as a unary call of gRPC, which is the same over HTTP/2 with the
//! length before the message and the status behind it.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, StatusCode, Version};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;

use super::{Destination, Protocol};

/// Longer answers are no acknowledgements.
const LONGEST_ANSWER: usize = 1 << 16;
/// Compression flag and length before a message of gRPC.
const PREFIX: usize = 5;

/// A connection to a collector, made anew where it breaks.
#[derive(Debug)]
pub(crate) struct Transport {
    destination: Destination,
    client: Connector,
}

/// The system's certificates are read only where they are needed.
#[derive(Debug)]
enum Connector {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// Why something was not taken.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    /// The same may be taken later.
    pub is_passing: bool,
    pub reason: String,
}

impl Refused {
    fn passing(reason: impl Into<String>) -> Self {
        Refused {
            is_passing: true,
            reason: reason.into(),
        }
    }

    fn for_good(reason: impl Into<String>) -> Self {
        Refused {
            is_passing: false,
            reason: reason.into(),
        }
    }
}

impl Transport {
    /// Connects to nothing yet. An error says that TLS is asked for and the system has no certificates.
    pub fn new(destination: Destination) -> Result<Self, String> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new());
        let is_grpc = destination.protocol == Protocol::Grpc;
        builder.http2_only(is_grpc);
        let client = match destination.uri.scheme_str() == Some("https") {
            false => Connector::Plain(builder.build(HttpConnector::new())),
            true => {
                let https = HttpsConnectorBuilder::new()
                    .with_native_roots()
                    .map_err(|error| format!("no certificates to check https with: {error}"))?
                    .https_only();
                Connector::Tls(builder.build(match is_grpc {
                    true => https.enable_http2().build(),
                    false => https.enable_http1().build(),
                }))
            }
        };
        Ok(Transport {
            destination,
            client,
        })
    }

    /// Host and port, without what a path or a query may hold.
    pub fn place(&self) -> String {
        let uri = &self.destination.uri;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // What stands before an @ is a key.
        let host = authority.rsplit('@').next().unwrap_or(authority);
        format!("{}://{host}", uri.scheme_str().unwrap_or("http"))
    }

    /// Sends a request's message; the answer is the response's.
    pub async fn send<A: Message + Default>(&self, message: &impl Message) -> Result<A, Refused> {
        let Destination { timeout, .. } = self.destination;
        match tokio::time::timeout(timeout, self.exchange(message)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refused::passing(format!(
                "no answer within {}",
                in_words(timeout)
            ))),
        }
    }

    async fn exchange<A: Message + Default>(&self, message: &impl Message) -> Result<A, Refused> {
        let request = self
            .request(message.encode_to_vec())
            .map_err(|error| Refused::for_good(error.to_string()))?;
        let sent = match &self.client {
            Connector::Plain(client) => client.request(request),
            Connector::Tls(client) => client.request(request),
        };
        let response = sent
            .await
            .map_err(|error| Refused::passing(cause(&error)))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Refused::passing(error.to_string()))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        of_status(head.status)?;
        let body = match self.destination.protocol {
            Protocol::Http => &body[..],
            Protocol::Grpc => {
                of_grpc(&head.headers, &trailers)?;
                body.get(PREFIX..).unwrap_or_default()
            }
        };
        A::decode(body).map_err(|error| Refused::for_good(format!("a strange answer: {error}")))
    }

    fn request(&self, message: Vec<u8>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let Destination {
            uri,
            protocol,
            headers,
            ..
        } = &self.destination;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(USER_AGENT, concat!("spinectl/", env!("CARGO_PKG_VERSION")));
        if let Some(known) = request.headers_mut() {
            known.extend(headers.clone());
        }
        let body = match protocol {
            Protocol::Http => {
                let protobuf = HeaderValue::from_static("application/x-protobuf");
                request = request.header(CONTENT_TYPE, protobuf);
                message
            }
            Protocol::Grpc => {
                let grpc = HeaderValue::from_static("application/grpc");
                request = request
                    .version(Version::HTTP_2)
                    .header(CONTENT_TYPE, grpc)
                    .header(TE, HeaderValue::from_static("trailers"));
                framed(&message)
            }
        };
        request.body(Full::new(Bytes::from(body)))
    }
}

/// A message of gRPC, not compressed.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(0);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed
}

/// OTLP over HTTP: these four may pass.
fn of_status(status: StatusCode) -> Result<(), Refused> {
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Refused::passing(format!("HTTP {status}"))),
        status if status.is_success() => Ok(()),
        status => Err(Refused::for_good(format!("HTTP {status}"))),
    }
}

/// The status of a call: behind the message, or in the head where there is none.
fn of_grpc(head: &HeaderMap, trailers: &HeaderMap) -> Result<(), Refused> {
    let find = |name: &str| {
        let value = trailers.get(name).or_else(|| head.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    let Some(status) = find("grpc-status") else {
        return Err(Refused::for_good("the answer is not gRPC's"));
    };
    let words = find("grpc-message").unwrap_or_default();
    let reason = format!("gRPC status {status} {words}");
    match status {
        "0" => Ok(()),
        // Cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data loss.
        "1" | "4" | "8" | "10" | "11" | "14" | "15" => Err(Refused::passing(reason.trim_end())),
        _ => Err(Refused::for_good(reason.trim_end())),
    }
}

/// The innermost reason: what is around it says only that a request failed.
fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn in_words(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    #[test]
    fn a_call_is_done_once_its_trailers_say_so() {
        let status =
            |status| HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
        let value = HeaderValue::from_static;
        let none = HeaderMap::new();
        assert_eq!(of_grpc(&none, &status(value("0"))), Ok(()));
        let unavailable = of_grpc(&status(value("14")), &none).unwrap_err();
        assert!(unavailable.is_passing, "{unavailable:?}");
        let unknown = of_grpc(&none, &status(value("12"))).unwrap_err();
        assert!(!unknown.is_passing, "{unknown:?}");
        assert!(
            !of_grpc(&none, &none).unwrap_err().is_passing,
            "a page of HTML"
        );
    }

    #[test]
    fn a_message_carries_its_length() {
        assert_eq!(framed(b"abc"), [0, 0, 0, 0, 3, b'a', b'b', b'c']);
    }

    #[test]
    fn what_is_overloaded_may_be_asked_again() {
        assert_eq!(of_status(StatusCode::OK), Ok(()));
        assert!(
            of_status(StatusCode::SERVICE_UNAVAILABLE)
                .unwrap_err()
                .is_passing
        );
        assert!(!of_status(StatusCode::BAD_REQUEST).unwrap_err().is_passing);
    }
}
