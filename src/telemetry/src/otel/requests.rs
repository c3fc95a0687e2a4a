//! OTLP's requests: spans, log records and metrics under the resource that they are of.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::attributes::{count, nanoseconds, text};
use crate::measures::{BOUNDS, Distribution, Instrument, Kind, Labels, Measures, Value};

/// What everything sent is of.
#[derive(Debug)]
pub(crate) struct Origin {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Origin {
    pub fn new(attributes: &[(String, String)]) -> Self {
        let attributes = attributes.iter().map(|(key, value)| text(key, value));
        Origin {
            resource: Resource {
                attributes: attributes.collect(),
                ..Resource::default()
            },
            scope: InstrumentationScope {
                name: "spinectl".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            },
        }
    }

    pub fn spans(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope_spans = vec![ScopeSpans {
            scope: Some(self.scope.clone()),
            spans,
            ..ScopeSpans::default()
        }];
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans,
                ..ResourceSpans::default()
            }],
        }
    }

    pub fn logs(&self, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
        let scope_logs = vec![ScopeLogs {
            scope: Some(self.scope.clone()),
            log_records,
            ..ScopeLogs::default()
        }];
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs,
                ..ResourceLogs::default()
            }],
        }
    }

    /// All series as they stand at `now`, seconds since the Unix epoch.
    pub fn metrics(&self, measures: &Measures, now: f64) -> ExportMetricsServiceRequest {
        let window = Window {
            start: nanoseconds(measures.since),
            now: nanoseconds(now),
        };
        let mut metrics: Vec<Metric> = Vec::new();
        let mut last = None;
        for ((instrument, labels), value) in &measures.series {
            if last != Some(instrument) {
                metrics.push(begin(instrument));
                last = Some(instrument);
            }
            if let Some(data) = metrics.last_mut().and_then(|metric| metric.data.as_mut()) {
                window.add(data, labels, value);
            }
        }
        let scope_metrics = vec![ScopeMetrics {
            scope: Some(self.scope.clone()),
            metrics,
            ..ScopeMetrics::default()
        }];
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics,
                ..ResourceMetrics::default()
            }],
        }
    }
}

/// A metric without points yet.
fn begin(instrument: &Instrument) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    Metric {
        name: instrument.name.to_owned(),
        description: instrument.description.to_owned(),
        unit: instrument.unit.to_owned(),
        data: Some(match instrument.kind {
            Kind::Counter | Kind::UpDownCounter => Data::Sum(Sum {
                data_points: Vec::new(),
                aggregation_temporality: temporality,
                is_monotonic: instrument.kind == Kind::Counter,
            }),
            Kind::Gauge => Data::Gauge(Gauge::default()),
            Kind::Histogram => Data::Histogram(Histogram {
                data_points: Vec::new(),
                aggregation_temporality: temporality,
            }),
        }),
        ..Metric::default()
    }
}

/// From when to when was counted, nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    now: u64,
}

impl Window {
    fn add(self, data: &mut Data, labels: &Labels, value: &Value) {
        match (data, value) {
            (Data::Sum(Sum { data_points, .. }), Value::Number(value)) => {
                data_points.push(self.number(labels, *value, self.start));
            }
            (Data::Gauge(Gauge { data_points }), Value::Number(value)) => {
                // A gauge has been counted since nowhen.
                data_points.push(self.number(labels, *value, 0));
            }
            (Data::Histogram(Histogram { data_points, .. }), Value::Distribution(value)) => {
                data_points.push(self.distribution(labels, value));
            }
            // A series is of its instrument's kind.
            _ => {}
        }
    }

    fn number(self, labels: &Labels, value: f64, start: u64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: start,
            time_unix_nano: self.now,
            value: Some(Point::AsDouble(value)),
            ..NumberDataPoint::default()
        }
    }

    fn distribution(self, labels: &Labels, value: &Distribution) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            count: value.count,
            sum: Some(value.sum),
            bucket_counts: value.buckets.to_vec(),
            explicit_bounds: BOUNDS.to_vec(),
            ..HistogramDataPoint::default()
        }
    }
}

/// Labels are words. What is a number in spans and logs is one here, too.
fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let attribute = |(key, value): &(&str, String)| match (*key, value.parse()) {
        ("spinectl.rank", Ok(number)) => count(key, number),
        _ => text(key, value),
    };
    labels.iter().map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use event::{EventKind, RunEvent, StepRecord};

    use super::*;

    #[test]
    fn a_rank_is_a_number_everywhere() {
        let labels = vec![
            ("spinectl.job", "7".to_owned()),
            ("spinectl.rank", "1".to_owned()),
        ];
        let expected = [text("spinectl.job", "7"), count("spinectl.rank", 1)];
        assert_eq!(attributes(&labels), expected);
    }

    #[test]
    fn a_metric_holds_the_series_of_all_jobs() {
        let mut measures = Measures::new(1.0);
        for (job, samples) in [("a", 3), ("b", 5), ("a", 3)] {
            measures.take(&RunEvent::job(
                job,
                1,
                EventKind::Step(StepRecord {
                    samples,
                    seconds: 0.2,
                    host_memory: Some(7),
                    ..StepRecord::default()
                }),
            ));
        }
        let origin = Origin::new(&[("service.name".to_owned(), "x".to_owned())]);
        let request = origin.metrics(&measures, 2.0);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let find = |name| {
            let mut found = metrics.iter().filter(|metric| metric.name == name);
            let data = found.next().unwrap().data.clone().unwrap();
            assert!(found.next().is_none(), "{name} stands twice");
            data
        };
        let Data::Sum(sum) = find("spinectl.samples") else {
            panic!("{metrics:?}");
        };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        let points: Vec<_> = sum
            .data_points
            .iter()
            .map(|point| {
                (
                    point.attributes.clone(),
                    point.value,
                    point.start_time_unix_nano,
                )
            })
            .collect();
        let point = |job, value| {
            let value = Some(Point::AsDouble(value));
            (vec![text("spinectl.job", job)], value, 1_000_000_000)
        };
        assert_eq!(points, [point("a", 6.0), point("b", 5.0)]);
        let Data::Sum(memory) = find("process.memory.usage") else {
            panic!("{metrics:?}");
        };
        assert!(!memory.is_monotonic, "it may fall");
        assert_eq!(memory.data_points.len(), 2);
        let Data::Histogram(durations) = find("spinectl.step.duration") else {
            panic!("{metrics:?}");
        };
        let first = &durations.data_points[0];
        assert_eq!((first.count, first.sum), (2, Some(0.4)));
        assert_eq!(first.bucket_counts.iter().sum::<u64>(), 2);
        assert_eq!(first.bucket_counts.len(), first.explicit_bounds.len() + 1);
    }
}
