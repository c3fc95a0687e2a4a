//! Messages of TensorBoard's own plugins, those fields of them that are written.
//!
//! Field numbers are those of TensorBoard 2.21: `plugins/hparams/plugin_data.proto`, `plugins/custom_scalar/layout.proto`,
//! `plugins/pr_curve/plugin_data.proto`, and `google/protobuf/struct.proto`.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// `hparams/plugin_data.proto`, `HParamsPluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HParams {
    #[prost(oneof = "Session", tags = "3, 4")]
    pub session: Option<Session>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Session {
    #[prost(message, tag = "3")]
    Start(SessionStart),
    #[prost(message, tag = "4")]
    End(SessionEnd),
}

/// `SessionStartInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    pub hparams: BTreeMap<String, HParam>,
    /// Sessions of one group are repetitions of one another.
    #[prost(string, tag = "4")]
    pub group_name: String,
    #[prost(double, tag = "5")]
    pub start_time_secs: f64,
}

/// `SessionEndInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionEnd {
    #[prost(int32, tag = "1")]
    pub status: i32,
    #[prost(double, tag = "2")]
    pub end_time_secs: f64,
}

/// `hparams/api.proto`, `Status.STATUS_SUCCESS`.
pub(super) const STATUS_SUCCESS: i32 = 1;

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HParam {
    #[prost(oneof = "HParamValue", tags = "2, 3, 4")]
    pub value: Option<HParamValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum HParamValue {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Flag(bool),
}

/// `pr_curve/plugin_data.proto`, `PrCurvePluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PrCurve {
    #[prost(uint32, tag = "2")]
    pub num_thresholds: u32,
}

/// `custom_scalar/layout.proto`, `Layout`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Layout {
    #[prost(message, repeated, tag = "2")]
    pub category: Vec<Category>,
}

/// `Category`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Category {
    #[prost(string, tag = "1")]
    pub title: String,
    #[prost(message, repeated, tag = "2")]
    pub chart: Vec<Chart>,
}

/// `Chart` of several lines.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Chart {
    #[prost(string, tag = "1")]
    pub title: String,
    #[prost(message, optional, tag = "2")]
    pub multiline: Option<Multiline>,
}

/// `MultilineChartContent`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Multiline {
    /// Regular expressions that tags begin with.
    #[prost(string, repeated, tag = "1")]
    pub tag: Vec<String>,
}
