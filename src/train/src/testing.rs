//! What the tests of this crate share: a world of one rank, a small model and its updates.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use collective::{Backend, Place, ProcessGroup, Rendezvous, Store};
use event::{EventKind, Phase};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::config::UpdateConfig;
use crate::report::Report;
use crate::state::Parameters;
use crate::step::{Losses, Outcome, Stepper};

/// Nobody listens.
pub(crate) struct Silent;

impl Report for Silent {
    fn report(&self, _: EventKind) {}
    fn at(&self, _: Phase, _: u64, _: u64) {}
}

/// A group of this process alone.
pub(crate) fn alone() -> (Store, ProcessGroup) {
    let timeout = Duration::from_secs(20);
    let store = Store::connect(&Rendezvous::alone(timeout)).unwrap();
    let group = ProcessGroup::new(&store, Backend::Gloo, "test", timeout).unwrap();
    (store, group)
}

/// Runs `body` on so many ranks, each in a thread; what each came to.
pub(crate) fn on_ranks<T: Send>(
    world_size: usize,
    body: impl Fn(&Rc<ProcessGroup>) -> T + Sync,
) -> Vec<T> {
    let meeting = tempfile::tempfile().unwrap();
    let timeout = Duration::from_secs(60);
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                let (place, body) = (Place::File(meeting.as_raw_fd()), &body);
                scope.spawn(move || {
                    let store = Store::connect(&Rendezvous {
                        rank,
                        world_size,
                        place,
                        timeout,
                    })
                    .unwrap();
                    let group = ProcessGroup::new(&store, Backend::Gloo, "test", timeout);
                    let group = Rc::new(group.unwrap());
                    let result = body(&group);
                    // Nobody leaves while another still listens to it.
                    group.barrier().unwrap();
                    result
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// libtorch has one generator for all threads, and tests run on several.
static GENERATOR: Mutex<()> = Mutex::new(());

/// What `draw` draws after this seed, whatever other tests do.
fn drawn<T>(seed: i64, draw: impl FnOnce() -> T) -> T {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    draw()
}

/// A kernel, a norm with its statistics, and a head: a tensor of every kind that groups and layouts tell apart.
pub(crate) struct Small {
    pub store: VarStore,
}

impl Small {
    /// The same weights at every call.
    pub fn new() -> Self {
        drawn(11, Self::draw)
    }

    fn draw() -> Self {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        let normal = Init::Randn {
            mean: 0.0,
            stdev: 0.3,
        };
        let cnn = &root / "backbone";
        for (path, name, shape) in [
            (&cnn / "conv", "weight", vec![4, 2, 3, 3]),
            (&cnn / "bn", "weight", vec![4]),
            (&cnn / "bn", "bias", vec![4]),
            (&root / "head", "weight", vec![3, 4]),
            (&root / "head", "bias", vec![3]),
        ] {
            let _ = path.f_var(name, &shape, normal).unwrap();
        }
        let bn = &cnn / "bn";
        let _ = bn.f_zeros_no_train("running_mean", &[4]).unwrap();
        let _ = bn.f_ones_no_train("running_var", &[4]).unwrap();
        Small { store }
    }

    pub fn variable(&self, name: &str) -> Tensor {
        self.store.variables()[name].shallow_clone()
    }

    /// Flips the last bit of value `index` of a variable.
    pub fn flip_bit(&self, name: &str, index: i64) {
        let _no_grad = tch::no_grad_guard();
        let bits = self.variable(name).view_dtype(Kind::Int).view([-1]);
        let mut value = bits.narrow(0, index, 1);
        let flipped = value.bitwise_xor(1);
        value.copy_(&flipped);
    }

    pub fn stepper<'a>(&self, config: &UpdateConfig, group: &'a ProcessGroup) -> Stepper<'a> {
        Stepper::new(Parameters::of(&self.store), config, group, &Silent).unwrap()
    }

    /// The loss of micro-batch number `batch`, whose values are a function of it.
    pub fn loss(&self, batch: i64) -> Losses {
        let normal = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let (image, target) = drawn(1000 + batch, || (normal(&[5, 2, 6, 6]), normal(&[5, 3])));
        let map = image.conv2d(
            &self.variable("backbone.conv.weight"),
            None::<Tensor>,
            1,
            1,
            1,
            1,
        );
        let map = map.batch_norm(
            Some(&self.variable("backbone.bn.weight")),
            Some(&self.variable("backbone.bn.bias")),
            Some(&self.variable("backbone.bn.running_mean")),
            Some(&self.variable("backbone.bn.running_var")),
            true,
            0.1,
            1e-5,
            true,
        );
        let features = map.relu().mean_dim(&[2i64, 3][..], false, None);
        let output = features.linear(
            &self.variable("head.weight"),
            Some(&self.variable("head.bias")),
        );
        Losses {
            total: (output - target).square().mean(None),
            parts: Vec::new(),
            images: 5,
        }
    }

    /// Updates number `steps` of two micro-batches each.
    pub fn train(&self, stepper: &mut Stepper, steps: std::ops::Range<u64>) -> Vec<Outcome> {
        steps
            .map(|step| {
                let mut batch = 2 * step as i64;
                let load = || {
                    batch += 1;
                    Ok(batch.into())
                };
                let forward = |batch| Ok(self.loss(batch));
                stepper.update(step, 0.05, 2, load, forward, false).unwrap()
            })
            .collect()
    }

    /// All values by name, to the bit.
    pub fn bits(&self) -> Vec<(String, Vec<u8>)> {
        crate::model_tensors(&self.store)
            .unwrap()
            .into_iter()
            .map(|tensor| (tensor.name, tensor.bytes))
            .collect()
    }
}
