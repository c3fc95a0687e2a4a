//! Values of a summary, each as the plugin that shows it wants it.

use event::{Histogram, Scores, Setting};
use prost::Message;

use super::message::{
    DATA_CLASS_BLOB_SEQUENCE, DATA_CLASS_TENSOR, DT_DOUBLE, DT_FLOAT, DT_STRING, PluginData,
    SummaryMetadata, SummaryValue, TensorDim, TensorProto, TensorShape, Value,
};
use super::picture::Png;
use super::plugin::{
    Category, Chart, HParam, HParamValue, HParams, Layout, Multiline, PrCurve, STATUS_SUCCESS,
    Session, SessionEnd, SessionStart,
};

/// The plugins of what is large.
const IMAGES: &str = "images";
const HISTOGRAMS: &str = "histograms";

/// A text, which TensorBoard shows as Markdown.
pub(super) fn text(tag: &str, text: &str) -> SummaryValue {
    let tensor = strings(&[1], vec![text.as_bytes().to_vec()]);
    value(tag, plugin("text", Vec::new()), tensor)
}

/// One image under its tag; `caption` is shown beside the tag.
pub(super) fn image(tag: &str, png: Png, caption: &str) -> SummaryValue {
    let size = [png.width, png.height].map(|side| side.to_string().into_bytes());
    let [width, height] = size;
    let tensor = strings(&[3], vec![width, height, png.bytes]);
    let metadata = SummaryMetadata {
        summary_description: caption.to_owned(),
        data_class: DATA_CLASS_BLOB_SEQUENCE,
        ..plugin(IMAGES, Vec::new())
    };
    value(tag, metadata, tensor)
}

/// Whether a value is a picture or a histogram: what makes files large.
pub(super) fn is_large(value: &SummaryValue) -> bool {
    let metadata = value.metadata.as_ref();
    let data = metadata.and_then(|metadata| metadata.plugin_data.as_ref());
    data.is_some_and(|data| matches!(data.plugin_name.as_str(), IMAGES | HISTOGRAMS))
}

/// Precision over recall as the threshold rises from 0 to 1 in even steps; none where the two counts are not of the same,
/// at least two, bins. A score at the threshold counts as positive.
///
/// Tensor (6, thresholds) f32: true and false positives, true and false negatives, precision, recall.
pub(super) fn pr_curve(tag: &str, scores: &Scores) -> Option<SummaryValue> {
    let bins = scores.positives.len();
    if bins < 2 || scores.negatives.len() != bins {
        return None;
    }
    let from_each_on = |counts: &[u64]| -> Vec<u64> {
        let mut sums: Vec<u64> = counts
            .iter()
            .rev()
            .scan(0u64, |sum, count| {
                *sum = sum.saturating_add(*count);
                Some(*sum)
            })
            .collect();
        sums.reverse();
        sums
    };
    let (true_positives, false_positives) = (
        from_each_on(&scores.positives),
        from_each_on(&scores.negatives),
    );
    let rest = |counts: &[u64]| -> Vec<u64> {
        let all = counts.first().copied().unwrap_or(0);
        counts.iter().map(|count| all - count).collect()
    };
    let (false_negatives, true_negatives) = (rest(&true_positives), rest(&false_positives));
    // As TensorBoard has it: 0 of 0 is 0.
    let share = |parts: &[u64], others: &[u64]| -> Vec<f32> {
        let pairs = parts.iter().zip(others);
        pairs
            .map(|(part, other)| *part as f32 / (part.saturating_add(*other)).max(1) as f32)
            .collect()
    };
    let counts = [
        &true_positives,
        &false_positives,
        &true_negatives,
        &false_negatives,
    ];
    let mut rows: Vec<f32> = counts.into_iter().flatten().map(|n| *n as f32).collect();
    rows.extend(share(&true_positives, &false_positives));
    rows.extend(share(&true_positives, &false_negatives));
    let content = PrCurve {
        num_thresholds: u32::try_from(bins).ok()?,
    };
    let content = content.encode_to_vec();
    Some(value(
        tag,
        plugin("pr_curves", content),
        floats(&[6, bins], &rows),
    ))
}

/// Tensor (bins, 3) f64: left end, right end, count. None where ends and counts do not fit.
pub(super) fn histogram(tag: &str, histogram: &Histogram) -> Option<SummaryValue> {
    let Histogram { edges, counts, .. } = histogram;
    if counts.is_empty() || edges.len() != counts.len() + 1 {
        return None;
    }
    let bins = edges.windows(2).zip(counts);
    let numbers = bins.flat_map(|(ends, count)| [ends[0], ends[1], *count as f64]);
    let tensor = TensorProto {
        dtype: DT_DOUBLE,
        tensor_shape: Some(shape(&[counts.len(), 3])),
        tensor_content: numbers.flat_map(f64::to_le_bytes).collect(),
        string_val: Vec::new(),
    };
    Some(value(tag, plugin(HISTOGRAMS, Vec::new()), tensor))
}

/// The settings that a training which begins is compared by.
pub(super) fn session_start<'a>(
    settings: impl Iterator<Item = (&'a String, &'a Setting)>,
    group: &str,
    time: f64,
) -> SummaryValue {
    let hparam = |setting: &Setting| HParam {
        value: Some(match setting {
            Setting::Flag(flag) => HParamValue::Flag(*flag),
            Setting::Number(number) => HParamValue::Number(*number),
            Setting::Text(text) => HParamValue::Text(text.clone()),
        }),
    };
    session(
        "_hparams_/session_start_info",
        Session::Start(SessionStart {
            hparams: settings
                .map(|(name, setting)| (name.clone(), hparam(setting)))
                .collect(),
            group_name: group.to_owned(),
            start_time_secs: time,
        }),
    )
}

/// A training has come to its end. Readers keep the first end of a session: one that may go on has none.
pub(super) fn session_end(time: f64) -> SummaryValue {
    session(
        "_hparams_/session_end_info",
        Session::End(SessionEnd {
            status: STATUS_SUCCESS,
            end_time_secs: time,
        }),
    )
}

fn session(tag: &str, session: Session) -> SummaryValue {
    let session = Some(session);
    let metadata = plugin("hparams", HParams { session }.encode_to_vec());
    // All is in the metadata.
    value(tag, metadata, floats(&[0], &[]))
}

/// Charts that show all jobs at once, so that folds lie over each other: titles, and what tags begin with, as regular
/// expressions.
pub(super) fn layout(category: &str, charts: &[(&str, &[&str])]) -> SummaryValue {
    let charts = charts.iter().map(|(title, tags)| Chart {
        title: (*title).to_owned(),
        multiline: Some(Multiline {
            tag: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }),
    });
    let layout = Layout {
        category: vec![Category {
            title: category.to_owned(),
            chart: charts.collect(),
        }],
    };
    value(
        "custom_scalars__config__",
        plugin("custom_scalars", Vec::new()),
        strings(&[], vec![layout.encode_to_vec()]),
    )
}

fn value(tag: &str, metadata: SummaryMetadata, tensor: TensorProto) -> SummaryValue {
    SummaryValue {
        tag: tag.to_owned(),
        metadata: Some(metadata),
        value: Some(Value::Tensor(tensor)),
    }
}

fn plugin(name: &str, content: Vec<u8>) -> SummaryMetadata {
    SummaryMetadata {
        plugin_data: Some(PluginData {
            plugin_name: name.to_owned(),
            content,
        }),
        summary_description: String::new(),
        data_class: DATA_CLASS_TENSOR,
    }
}

fn strings(sizes: &[usize], values: Vec<Vec<u8>>) -> TensorProto {
    TensorProto {
        dtype: DT_STRING,
        tensor_shape: Some(shape(sizes)),
        tensor_content: Vec::new(),
        string_val: values,
    }
}

fn floats(sizes: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        dtype: DT_FLOAT,
        tensor_shape: Some(shape(sizes)),
        tensor_content: values.iter().copied().flat_map(f32::to_le_bytes).collect(),
        string_val: Vec::new(),
    }
}

fn shape(sizes: &[usize]) -> TensorShape {
    let dim = |size: &usize| TensorDim { size: *size as i64 };
    TensorShape {
        dim: sizes.iter().map(dim).collect(),
    }
}
