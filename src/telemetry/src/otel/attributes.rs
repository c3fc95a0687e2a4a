//! OTLP's attributes and times from plain values.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

/// Bytes of one text that are sent: a batch of them still is a message that collectors take, 4 MiB over gRPC.
const LONGEST_TEXT: usize = 4096;

pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(shortened(value.into())))
}

pub(crate) fn number(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

pub(crate) fn count(key: &str, value: u64) -> KeyValue {
    attribute(
        key,
        Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
    )
}

pub(crate) fn body(text: String) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(shortened(text))),
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Seconds since the Unix epoch as OTLP counts them; a time before it, or none at all, is 0.
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// The text, or the beginning of one that is too long.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let long = format!("a{}", "é".repeat(LONGEST_TEXT));
        let sent = shortened(long.clone());
        let kept = sent.strip_suffix("...").unwrap();
        assert_eq!(kept.len(), LONGEST_TEXT - 1);
        assert!(long.starts_with(kept));
        let whole = "a".repeat(LONGEST_TEXT);
        assert_eq!(shortened(whole.clone()), whole);
        assert_eq!(text("a", long), attribute("a", Value::StringValue(sent)));
    }
}
