//! One request of OTLP: protocol buffers posted over HTTP, or as a unary call of gRPC, which is the same over HTTP/2 with the
//! length before the message and the status behind it.

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, Version};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;

use super::verdict::{Refused, of_grpc, of_status};
use super::{Destination, Protocol};

/// Longer answers are no acknowledgements.
const LONGEST_ANSWER: usize = 1 << 16;
/// Compression flag and length before a message of gRPC.
const PREFIX: usize = 5;

/// A connection to a collector, made anew where it breaks.
#[derive(Debug)]
pub(crate) struct Transport {
    destination: Destination,
    connector: Connector,
    client: Line,
}

/// How to connect. The system's certificates are read only where they are needed.
#[derive(Clone, Debug)]
enum Connector {
    Plain(HttpConnector),
    Tls(HttpsConnector<HttpConnector>),
}

/// What is connected.
#[derive(Debug)]
enum Line {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Connector {
    fn new(destination: &Destination) -> Result<Self, String> {
        if destination.uri.scheme_str() != Some("https") {
            return Ok(Connector::Plain(HttpConnector::new()));
        }
        let https = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("no certificates to check https with: {error}"))?
            .https_only();
        Ok(Connector::Tls(match destination.protocol {
            Protocol::Grpc => https.enable_http2().build(),
            Protocol::Http => https.enable_http1().build(),
        }))
    }

    fn line(&self, protocol: Protocol) -> Line {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http2_only(protocol == Protocol::Grpc);
        match self.clone() {
            Connector::Plain(connector) => Line::Plain(builder.build(connector)),
            Connector::Tls(connector) => Line::Tls(builder.build(connector)),
        }
    }
}

impl Transport {
    /// Connects to nothing yet. An error says that TLS is asked for and the system has no certificates.
    pub fn new(destination: Destination) -> Result<Self, String> {
        let connector = Connector::new(&destination)?;
        Ok(Transport {
            client: connector.line(destination.protocol),
            connector,
            destination,
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
    pub async fn send<A: Message + Default>(
        &mut self,
        message: &impl Message,
    ) -> Result<A, Refused> {
        let Destination {
            timeout, protocol, ..
        } = self.destination;
        match tokio::time::timeout(timeout, self.exchange(message)).await {
            Ok(answer) => answer,
            Err(_) => {
                // What swallowed this request would swallow the next one, and HTTP/2 has but one connection.
                self.client = self.connector.line(protocol);
                Err(Refused::passing(format!(
                    "no answer within {} s",
                    timeout.as_secs_f64()
                )))
            }
        }
    }

    async fn exchange<A: Message + Default>(&self, message: &impl Message) -> Result<A, Refused> {
        let request = self
            .request(message.encode_to_vec())
            .map_err(|error| Refused::for_good(error.to_string()))?;
        let sent = match &self.client {
            Line::Plain(client) => client.request(request),
            Line::Tls(client) => client.request(request),
        };
        let response = sent
            .await
            .map_err(|error| Refused::passing(cause(&error)))?;
        let (head, body) = response.into_parts();
        of_status(head.status, &head.headers)?;
        let body = Limited::new(body, LONGEST_ANSWER).collect();
        let body = match self.destination.protocol {
            // Taken is what this status says; whatever else is in the answer, or does not come, does not change that.
            Protocol::Http => {
                let patience = self.destination.timeout / 2;
                let body = tokio::time::timeout(patience, body).await;
                let body = body.ok().and_then(Result::ok);
                body.map(|body| body.to_bytes()).unwrap_or_default()
            }
            Protocol::Grpc => {
                let body = body
                    .await
                    .map_err(|error| match error.is::<LengthLimitError>() {
                        true => Refused::for_good("the answer is too long"),
                        false => Refused::passing(error.to_string()),
                    })?;
                let trailers = body.trailers().cloned().unwrap_or_default();
                of_grpc(&head.headers, &trailers)?;
                let body = body.to_bytes();
                body.slice(PREFIX.min(body.len())..)
            }
        };
        Ok(A::decode(body).unwrap_or_default())
    }

    fn request(&self, message: Vec<u8>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let Destination {
            uri,
            protocol,
            headers,
            ..
        } = &self.destination;
        let body = match protocol {
            Protocol::Http => message,
            Protocol::Grpc => framed(&message),
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(USER_AGENT, concat!("spinectl/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))?;
        let known = request.headers_mut();
        known.extend(headers.clone());
        // In place of a user's: these are what the body is.
        match protocol {
            Protocol::Http => {
                let protobuf = HeaderValue::from_static("application/x-protobuf");
                known.insert(CONTENT_TYPE, protobuf);
            }
            Protocol::Grpc => {
                known.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                known.insert(TE, HeaderValue::from_static("trailers"));
                *request.version_mut() = Version::HTTP_2;
            }
        }
        Ok(request)
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

/// The innermost reason: what is around it says only that a request failed.
fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_length() {
        assert_eq!(framed(b"abc"), [0, 0, 0, 0, 3, b'a', b'b', b'c']);
    }
}
