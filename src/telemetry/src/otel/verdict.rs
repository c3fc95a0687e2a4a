//! What an answer of a collector means: taken, not now, or never. By OTLP's rules for HTTP and gRPC.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use prost::Message;

/// Why something was not taken.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    /// The same may be taken later.
    pub is_passing: bool,
    /// How much later, where the collector says so.
    pub after: Option<Duration>,
    pub reason: String,
}

impl Refused {
    pub fn passing(reason: impl Into<String>) -> Self {
        Refused {
            is_passing: true,
            after: None,
            reason: reason.into(),
        }
    }

    pub fn for_good(reason: impl Into<String>) -> Self {
        Refused {
            is_passing: false,
            after: None,
            reason: reason.into(),
        }
    }
}

/// HTTP: these four may pass.
pub(super) fn of_status(status: StatusCode, head: &HeaderMap) -> Result<(), Refused> {
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Refused {
            after: retry_after(head),
            ..Refused::passing(format!("HTTP {status}"))
        }),
        status if status.is_success() => Ok(()),
        status => Err(Refused::for_good(format!("HTTP {status}"))),
    }
}

/// In seconds. A date, which is the other way to say it, is rare and left to the usual pauses.
fn retry_after(head: &HeaderMap) -> Option<Duration> {
    let seconds = head.get(RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// The status of a call of gRPC: behind the message, or in the head where there is none.
pub(super) fn of_grpc(head: &HeaderMap, trailers: &HeaderMap) -> Result<(), Refused> {
    let find = |name: &str| {
        let value = trailers.get(name).or_else(|| head.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    let Some(status) = find("grpc-status") else {
        return Err(Refused::for_good("the answer is not gRPC's"));
    };
    let words = find("grpc-message").unwrap_or_default();
    let reason = format!("gRPC status {status} {words}");
    let reason = reason.trim_end();
    let retry = find("grpc-status-details-bin").and_then(retry_info);
    match (status, retry) {
        ("0", _) => Ok(()),
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss. Resources are exhausted for good (a message is
        // too large) unless the collector says when it will have some.
        ("1" | "4" | "10" | "11" | "14" | "15", _) | ("8", Some(_)) => Err(Refused {
            after: retry,
            ..Refused::passing(reason)
        }),
        _ => Err(Refused::for_good(reason)),
    }
}

/// How long the details of a status, a `google.rpc.Status`, ask to wait.
fn retry_info(details: &str) -> Option<Duration> {
    let details = STANDARD_NO_PAD.decode(details.trim_end_matches('=')).ok()?;
    let details = Details::decode(&details[..]).ok()?.details;
    let of_retry = |any: &&Any| any.type_url.ends_with("/google.rpc.RetryInfo");
    let info = RetryInfo::decode(&details.iter().find(of_retry)?.value[..]).ok()?;
    let Delay { seconds, nanos } = info.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Some(Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// Of `google.rpc.Status`.
#[derive(Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn trailers(status: &'static str, details: &str) -> HeaderMap {
        HeaderMap::from_iter([
            (
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(status),
            ),
            (
                HeaderName::from_static("grpc-status-details-bin"),
                HeaderValue::try_from(details).unwrap(),
            ),
        ])
    }

    #[test]
    fn a_call_is_done_once_its_trailers_say_so() {
        let none = HeaderMap::new();
        assert_eq!(of_grpc(&none, &trailers("0", "")), Ok(()));
        let unavailable = of_grpc(&trailers("14", ""), &none).unwrap_err();
        assert!(unavailable.is_passing, "{unavailable:?}");
        let unknown = of_grpc(&none, &trailers("12", "")).unwrap_err();
        assert!(!unknown.is_passing, "{unknown:?}");
        assert!(
            !of_grpc(&none, &none).unwrap_err().is_passing,
            "a page of HTML"
        );
    }

    #[test]
    fn exhausted_resources_pass_only_where_the_collector_says_when() {
        let none = HeaderMap::new();
        let too_large = of_grpc(&none, &trailers("8", "")).unwrap_err();
        assert!(!too_large.is_passing, "{too_large:?}");
        // Python: base64.b64encode(Status(code=8, details=[any of RetryInfo(retry_delay=Duration(seconds=7, nanos=500000000))])).
        let details =
            "CAgaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIKCggIBxCAyrXuAQ==";
        for spelled in [details, details.trim_end_matches('=')] {
            let throttled = of_grpc(&none, &trailers("8", spelled)).unwrap_err();
            assert!(throttled.is_passing, "{throttled:?}");
            assert_eq!(throttled.after, Some(Duration::from_millis(7500)));
        }
        let odd = of_grpc(&none, &trailers("8", "%%")).unwrap_err();
        assert!(!odd.is_passing, "{odd:?}");
    }

    #[test]
    fn what_is_overloaded_may_be_asked_again() {
        let none = HeaderMap::new();
        assert_eq!(of_status(StatusCode::OK, &none), Ok(()));
        let bad = of_status(StatusCode::BAD_REQUEST, &none).unwrap_err();
        assert!(!bad.is_passing);
        for (said, after) in [("7", Some(7)), ("Fri, 31 Dec 1999 23:59:59 GMT", None)] {
            let head = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(said))]);
            let busy = of_status(StatusCode::SERVICE_UNAVAILABLE, &head).unwrap_err();
            assert!(busy.is_passing);
            assert_eq!(busy.after, after.map(Duration::from_secs));
        }
    }
}
