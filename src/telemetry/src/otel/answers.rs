//! What a collector says of a request that it has taken: all of it, or not quite.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

pub(super) trait Answer: Message + Default {
    /// How many spans, log records or points were refused, and words about it; nothing where all is well.
    fn partial(self) -> (u64, String);
}

macro_rules! answers {
    ($($response:ident: $rejected:ident;)*) => {
        $(impl Answer for $response {
            fn partial(self) -> (u64, String) {
                let partial = self.partial_success.unwrap_or_default();
                let rejected = u64::try_from(partial.$rejected).unwrap_or(0);
                (rejected, partial.error_message)
            }
        })*
    };
}

answers! {
    ExportTraceServiceResponse: rejected_spans;
    ExportLogsServiceResponse: rejected_log_records;
    ExportMetricsServiceResponse: rejected_data_points;
}
