//! The networks have timm's parameters and the shapes that the pipeline names.

use nn::{Backbone, BackboneConfig, BiLstm, Localizer, Pass, SliceHeads, SliceModel, StudyModel};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn image(shape: &[i64]) -> Tensor {
    tch::manual_seed(1);
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// timm 1.0.31: resnest50d has 476 keys and 27,483,240 parameters, of which the classifier
/// (2048 x 1000 + 1000) is not built here.
#[test]
fn resnest50d_has_timms_keys_and_parameters() {
    let store = VarStore::new(Device::Cpu);
    let backbone = Backbone::new(&store.root(), &BackboneConfig::of("resnest50d")).unwrap();
    assert_eq!(backbone.features(), 2048);
    assert_eq!(store.len(), 476 - 2);
    let count: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
    assert_eq!(count, 27_483_240 - 2_049_000);
    let variables = store.variables();
    for (key, shape) in [
        ("conv1.3.weight", vec![32, 32, 3, 3]),
        ("bn1.num_batches_tracked", vec![]),
        ("layer1.0.conv2.fc1.bias", vec![32]),
        ("layer2.0.conv2.conv.weight", vec![256, 64, 3, 3]),
        ("layer4.0.downsample.1.weight", vec![2048, 1024, 1, 1]),
    ] {
        assert_eq!(variables[key].size(), shape, "{key}");
    }
}

/// A recipe refuses other names before anything is started.
#[test]
fn a_recipe_knows_the_architectures_that_there_are() {
    let names: Vec<&str> = nn::architectures().map(|arch| arch.name).collect();
    assert_eq!(names, recipe::ARCHITECTURES);
}

#[test]
fn an_unknown_architecture_is_refused_with_the_known_ones() {
    let store = VarStore::new(Device::Cpu);
    let error = Backbone::new(&store.root(), &BackboneConfig::of("resnest15d"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("resnest15d") && error.contains("resnest14d"),
        "{error}"
    );
}

#[test]
fn evaluation_leaves_the_statistics_alone_and_training_moves_them() {
    tch::manual_seed(0);
    let store = VarStore::new(Device::Cpu);
    let model = Localizer::new(&store.root(), &BackboneConfig::of("resnest14d")).unwrap();
    let mean = || store.variables()["backbone.bn1.running_mean"].copy();
    let x = image(&[2, 3, 64, 64]);
    let before = mean();
    let located = model.forward(&x, &Pass::eval()).unwrap();
    assert_eq!(located.bounds.size(), [2, 4]);
    assert_eq!(located.has_box.size(), [2]);
    assert_eq!(mean(), before);
    model.forward(&x, &Pass::train()).unwrap();
    assert_ne!(mean(), before);
    assert_eq!(
        store.variables()["backbone.bn1.num_batches_tracked"].int64_value(&[]),
        1
    );
}

#[test]
fn the_slice_models_heads_have_the_pipelines_shapes() {
    tch::manual_seed(0);
    let store = VarStore::new(Device::Cpu);
    let model = SliceModel::new(
        &store.root(),
        &BackboneConfig::of("resnest14d"),
        Some(8),
        SliceHeads::Fracture,
    )
    .unwrap();
    let position = Tensor::from_slice(&[0.1f32, 0.5, 0.9]).view([1, 3]);
    let out = model
        .forward(&image(&[1, 3, 3, 32, 32]), &position, &Pass::eval())
        .unwrap();
    assert_eq!(out.ratio.size(), [1, 3, 7]);
    assert_eq!(out.fracture.unwrap().size(), [1, 3, 7]);
    assert_eq!(out.any.unwrap().size(), [1, 3]);
    let keys = store.variables();
    for key in [
        "rnn.weight_hh_l0_reverse",
        "head_any.bias",
        "backbone.conv1.0.weight",
    ] {
        assert!(keys.contains_key(key), "{key}");
    }
}

/// The gates in PyTorch's order (i, f, g, o), written out for one direction and one step each.
#[test]
fn the_lstm_is_the_formula() {
    tch::manual_seed(3);
    let store = VarStore::new(Device::Cpu);
    let rnn = BiLstm::new(&store.root(), 4, 3).unwrap();
    let x = image(&[1, 1, 4]);
    let out = rnn.forward(&x, false).unwrap().view(-1);
    let p = store.variables();
    for (suffix, offset) in [("", 0), ("_reverse", 3)] {
        let gates = p[&format!("weight_ih_l0{suffix}")].matmul(&x.view(-1))
            + &p[&format!("bias_ih_l0{suffix}")]
            + &p[&format!("bias_hh_l0{suffix}")];
        let gate = gates.chunk(4, 0);
        let cell = gate[0].sigmoid() * gate[2].tanh();
        let hidden = gate[3].sigmoid() * cell.tanh();
        assert!(
            (out.narrow(0, offset, 3) - hidden)
                .abs()
                .max()
                .double_value(&[])
                < 1e-6
        );
    }
}

#[test]
fn what_is_masked_does_not_reach_the_pools() {
    tch::manual_seed(0);
    let store = VarStore::new(Device::Cpu);
    let model =
        StudyModel::new(&store.root(), &BackboneConfig::of("resnest14d"), Some(8), 6).unwrap();
    let features = image(&[4, 2048]);
    let (padded, mask) = StudyModel::fit(&features, 6).unwrap();
    assert_eq!((padded.size(), mask.size()), (vec![6, 2048], vec![6]));
    assert_eq!(
        Vec::<f32>::try_from(&mask).unwrap(),
        [1., 1., 1., 1., 0., 0.]
    );
    let logits = |mask: &Tensor| {
        model
            .forward(&padded.unsqueeze(0), &mask.unsqueeze(0), &Pass::eval())
            .unwrap()
    };
    let masked = logits(&mask);
    assert_eq!(masked.size(), [1, 8]);
    assert_ne!(
        masked,
        logits(&Tensor::ones([6], (Kind::Float, Device::Cpu)))
    );
    let (resampled, mask) = StudyModel::fit(&image(&[9, 2048]), 6).unwrap();
    assert_eq!(resampled.size(), [6, 2048]);
    assert_eq!(mask.sum(Kind::Float).double_value(&[]), 6.0);
}
