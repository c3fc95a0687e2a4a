//! Weights of a safetensors file into a model, by name.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoint::{FitOptions, FitReport, TensorSpec};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::Result;
use crate::state::{from_host, specs};

/// Channels of the images that published weights are made for.
const RGB: i64 = 3;

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The file's SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// What was done to the file's tensors and what does not fit, to be shown.
    pub report: FitReport,
}

/// Loads the file at `path` into a model, on whatever device it is. All or nothing: an error leaves the model as it was.
///
/// Prefixes, classifiers, types and the first convolution's channels are brought into line ([`checkpoint::fit`]).
pub fn load(store: &VarStore, path: &Path, options: &FitOptions) -> Result<Loaded> {
    let file = checkpoint::read_weights(path)?;
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    let fit = file.fit(&specs(&variables)?, options)?;
    // All are made before the first is copied.
    let mut copies = Vec::with_capacity(fit.assignments.len());
    for assignment in &fit.assignments {
        let Some(target) = variables.get(&assignment.target) else {
            continue;
        };
        let mut source = from_host(&file.tensors[assignment.source])?;
        if let Some(channels) = assignment.channels {
            source = with_channels(&source, channels as i64)?;
        }
        copies.push((target.shallow_clone(), source));
    }
    let _no_grad = tch::no_grad_guard();
    for (mut target, source) in copies {
        target.f_copy_(&source)?;
    }
    Ok(Loaded {
        sha256: file.sha256,
        report: fit.report,
    })
}

/// Names, types and shapes of a file's tensors by name, for whoever sizes a model after them. Wrappers' prefixes
/// (`module.`) are taken off.
pub fn tensors(path: &Path) -> Result<BTreeMap<String, TensorSpec>> {
    let specs = checkpoint::safetensors_specs(path)?;
    Ok(checkpoint::unwrapped(specs)
        .into_iter()
        .map(|spec| (spec.name.clone(), spec))
        .collect())
}

/// C of the images that a file's weights are for, of its first convolution; none where it has none that is known.
pub fn channels(tensors: &BTreeMap<String, TensorSpec>) -> Option<i64> {
    let first = tensors
        .values()
        .find(|spec| checkpoint::is_first_convolution(&spec.name))?;
    i64::try_from(*first.shape.get(1)?).ok()
}

/// Filters for three channels as filters for `channels`, with the same answer to an image that is the same in all
/// channels: (O, 3, K, K) -> (O, channels, K, K). As timm's `adapt_input_conv`: the sum for one channel, else the three
/// repeated and scaled by 3 / channels.
fn with_channels(filters: &Tensor, channels: i64) -> Result<Tensor> {
    let filters = filters.f_to_kind(Kind::Float)?;
    if channels == 1 {
        return Ok(filters.f_sum_dim_intlist(&[1i64][..], true, None)?);
    }
    let times = (channels + RGB - 1) / RGB;
    Ok(filters
        .f_repeat([1, times, 1, 1])?
        .f_narrow(1, 0, channels)?
        .f_mul_scalar(RGB as f64 / channels as f64)?)
}

#[cfg(test)]
mod tests {
    use checkpoint::{Dtype, Part, TensorData, save_safetensors};
    use tch::Device;
    use tch::nn::Init;
    use tempfile::TempDir;

    use super::*;

    const STRICT: FitOptions = FitOptions {
        part: Part::Whole,
        strict: true,
        allow_non_finite: false,
    };

    fn floats(name: &str, shape: &[usize], values: &[f32]) -> TensorData {
        TensorData {
            name: name.into(),
            dtype: Dtype::F32,
            shape: shape.into(),
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    fn file(folder: &TempDir, tensors: &[TensorData]) -> std::path::PathBuf {
        let path = folder.path().join("w.safetensors");
        save_safetensors(&path, tensors).unwrap();
        path
    }

    /// A model with a first convolution for so many channels, a norm and a head.
    fn model(channels: i64) -> VarStore {
        let store = VarStore::new(Device::Cpu);
        let backbone = store.root() / "backbone";
        let _ = (&backbone / "conv1" / 0).var("weight", &[1, channels, 1, 2], Init::Const(-1.0));
        let _ = (&backbone / "bn1").var("bias", &[2], Init::Const(-1.0));
        let _ = (store.root() / "head").var("bias", &[1], Init::Const(-1.0));
        store
    }

    fn values(store: &VarStore, name: &str) -> Vec<f32> {
        let tensor = store.variables()[name].detach().contiguous().view(-1);
        Vec::<f32>::try_from(tensor).unwrap()
    }

    /// ```python
    /// w = torch.tensor([1., 2., 3., 4., 5., 6.]).view(1, 3, 1, 2)
    /// timm.models.adapt_input_conv(n, w).flatten()
    /// ```
    #[test]
    fn filters_for_other_channels_are_timms() {
        let folder = TempDir::new().unwrap();
        let path = file(
            &folder,
            &[
                floats(
                    "conv1.0.weight",
                    &[1, 3, 1, 2],
                    &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
                ),
                floats("bn1.bias", &[2], &[7.0, 8.0]),
            ],
        );
        let options = FitOptions {
            part: Part::Backbone,
            ..STRICT
        };
        for (channels, expected) in [
            (1, vec![9.0, 12.0]),
            (2, vec![1.5, 3.0, 4.5, 6.0]),
            (3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            (4, vec![0.75, 1.5, 2.25, 3.0, 3.75, 4.5, 0.75, 1.5]),
            (
                6,
                [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
                    .repeat(2)
                    .iter()
                    .map(|v| v * 0.5)
                    .collect(),
            ),
        ] {
            let store = model(channels);
            load(&store, &path, &options).unwrap();
            assert_eq!(values(&store, "backbone.conv1.0.weight"), expected);
            assert_eq!(values(&store, "backbone.bn1.bias"), [7.0, 8.0]);
            assert_eq!(values(&store, "head.bias"), [-1.0]);
        }
    }

    #[test]
    fn halves_become_floats_and_the_model_keeps_its_type() {
        let folder = TempDir::new().unwrap();
        let half = TensorData {
            name: "w".into(),
            dtype: Dtype::F16,
            shape: vec![2],
            // 1 and -2
            bytes: vec![0x00, 0x3c, 0x00, 0xc0],
        };
        let path = file(&folder, &[half]);
        let store = VarStore::new(Device::Cpu);
        let _ = store.root().zeros("w", &[2]);
        let loaded = load(&store, &path, &STRICT).unwrap();
        assert_eq!(values(&store, "w"), [1.0, -2.0]);
        assert_eq!(store.variables()["w"].kind(), Kind::Float);
        assert!(store.variables()["w"].requires_grad());
        assert_eq!(
            loaded.report.to_string(),
            "1 of 1 tensors loaded; 1 tensor converted from f16 to f32"
        );
        assert_eq!(loaded.sha256, checkpoint::file_sha256(&path).unwrap());
    }

    #[test]
    fn a_file_that_does_not_fit_leaves_the_model_as_it_was() {
        let folder = TempDir::new().unwrap();
        let path = file(
            &folder,
            &[
                floats("backbone.bn1.bias", &[2], &[7.0, 8.0]),
                floats("head.bias", &[2], &[9.0, 9.0]),
            ],
        );
        let store = model(3);
        let error = load(&store, &path, &STRICT).unwrap_err().to_string();
        assert!(
            error.contains("1 missing: backbone.conv1.0.weight f32 [1, 3, 1, 2]")
                && error.contains("head.bias (expected f32 [1], found f32 [2])"),
            "{error}"
        );
        assert_eq!(values(&store, "backbone.bn1.bias"), [-1.0, -1.0]);

        let loose = FitOptions {
            strict: false,
            ..STRICT
        };
        let report = load(&store, &path, &loose).unwrap().report;
        assert_eq!((report.loaded, report.expected), (1, 3));
        assert_eq!(values(&store, "backbone.bn1.bias"), [7.0, 8.0]);
        assert_eq!(values(&store, "head.bias"), [-1.0]);
    }

    #[test]
    fn sizes_are_read_without_wrappers_prefixes() {
        let folder = TempDir::new().unwrap();
        let path = file(
            &folder,
            &[floats("module.rnn.weight_hh_l0", &[8, 2], &[0.0; 16])],
        );
        let found = tensors(&path).unwrap();
        assert_eq!(found["rnn.weight_hh_l0"].shape, [8, 2]);
        assert_eq!(channels(&found), None);
        let path = file(
            &folder,
            &[floats(
                "module.backbone.conv_stem.weight",
                &[2, 6, 1, 1],
                &[0.0; 12],
            )],
        );
        assert_eq!(channels(&tensors(&path).unwrap()), Some(6));
    }
}
