//! What a pass brings from outside reaches the layers.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use nn::{Backbone, BackboneConfig, NnError, Norm, Pass, Recompute, Segment, SyncNorm, Taps};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// libtorch has one generator for all threads, and tests run on several.
static GENERATOR: Mutex<()> = Mutex::new(());

/// What `draw` draws after this seed, whatever other tests do.
fn drawn<T>(seed: i64, draw: impl FnOnce() -> T) -> T {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    draw()
}

fn image() -> Tensor {
    drawn(1, || {
        Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu))
    })
}

fn backbone(arch: &str, drop: f64) -> (VarStore, Backbone) {
    let store = VarStore::new(Device::Cpu);
    let config = BackboneConfig {
        drop_path: drop,
        drop_rate: drop,
        ..BackboneConfig::of(arch)
    };
    let backbone = drawn(0, || Backbone::new(&store.root(), &config).unwrap());
    (store, backbone)
}

/// Runs every segment a second time, as a backward pass would.
#[derive(Default)]
struct Twice(Cell<usize>);

impl Recompute for Twice {
    fn run(&self, segment: Segment, x: &Tensor) -> Result<Tensor, NnError> {
        self.0.set(self.0.get() + 1);
        let _ = segment(x, true)?;
        segment(x, false)
    }
}

#[test]
fn a_block_that_runs_again_moves_its_statistics_once() {
    let (store, net) = backbone("efficientnet_b0", 0.0);
    let (other_store, other) = backbone("efficientnet_b0", 0.0);
    let twice = Rc::new(Twice::default());
    let pass = Pass {
        recompute: Some(twice.clone()),
        ..Pass::train()
    };
    let features = net.forward(&image(), &pass).unwrap();
    assert_eq!(twice.0.get(), 16, "every block, and nothing else");
    assert_eq!(features, other.forward(&image(), &Pass::train()).unwrap());
    let expected = other_store.variables();
    for (name, tensor) in store.variables() {
        assert_eq!(tensor, expected[&name], "{name}");
    }
}

struct Counting(Cell<usize>);

impl SyncNorm for Counting {
    fn batch_norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor, NnError> {
        self.0.set(self.0.get() + 1);
        let (mean, var) = norm.running.unwrap();
        Ok(x.f_batch_norm(
            Some(norm.weight),
            Some(norm.bias),
            Some(mean),
            Some(var),
            true,
            norm.momentum,
            norm.eps,
            true,
        )?)
    }
}

#[test]
fn batch_norms_in_training_are_the_worlds_where_there_is_one() {
    let (_store, net) = backbone("seresnext26d_32x4d", 0.0);
    let counting = Rc::new(Counting(Cell::new(0)));
    let pass = Pass {
        norm: Some(counting.clone()),
        ..Pass::train()
    };
    let synced = net.forward(&image(), &pass).unwrap();
    // Three in the stem, three in each of eight blocks, one in each of four shortcuts.
    assert_eq!(counting.0.get(), 3 + 8 * 3 + 4);
    assert_eq!(synced, net.forward(&image(), &Pass::train()).unwrap());
    let in_inference = Pass {
        train: false,
        ..pass
    };
    let _ = net.forward(&image(), &in_inference).unwrap();
    assert_eq!(counting.0.get(), 31, "inference has its own statistics");
}

#[test]
fn taps_have_timms_names_and_do_not_disturb() {
    let (_store, net) = backbone("resnest14d", 0.0);
    let taps = Rc::new(Taps::default());
    let pass = Pass {
        taps: Some(taps.clone()),
        ..Pass::eval()
    };
    let features = net.forward(&image(), &pass).unwrap();
    assert_eq!(features, net.forward(&image(), &Pass::eval()).unwrap());
    let taps = taps.take();
    let names: Vec<&str> = taps.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["act1", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    );
    assert_eq!(taps[5].1.size(), [2, 2048, 2, 2]);
}

#[test]
fn nothing_is_dropped_in_inference() {
    let (_store, net) = backbone("efficientnet_b0", 0.5);
    let features = |pass: Pass| net.forward(&image(), &pass).unwrap();
    assert_eq!(features(Pass::eval()), features(Pass::eval()));
    let trained = features(Pass::train());
    assert!(trained.eq(0.0).any().int64_value(&[]) == 1, "dropout");
}

#[test]
fn one_value_a_channel_is_refused() {
    let (_store, net) = backbone("resnest14d", 0.0);
    let error = net
        .forward(&image().narrow(0, 0, 1), &Pass::train())
        .unwrap_err();
    assert!(
        matches!(error, NnError::OneValue { channels: 32 }),
        "{error}"
    );
}

#[test]
fn rates_and_channels_out_of_range_are_refused() {
    let store = VarStore::new(Device::Cpu);
    let config = |in_chans, drop_path| BackboneConfig {
        in_chans,
        drop_path,
        ..BackboneConfig::of("resnest14d")
    };
    let error = Backbone::new(&store.root(), &config(0, 0.0)).unwrap_err();
    assert!(error.to_string().contains("in_chans is 0"), "{error}");
    let error = Backbone::new(&store.root(), &config(3, 1.0)).unwrap_err();
    assert!(error.to_string().contains("drop_path is 1"), "{error}");
}
