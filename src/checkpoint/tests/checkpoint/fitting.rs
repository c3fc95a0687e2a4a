//! Names, types and shapes of a file against those of a model.

use checkpoint::{Dtype, Fit, Note, Part, TensorSpec, fit, unwrapped};

use Dtype::{Bf16, Bool, F16, F32, F64, I32, I64};

fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        dtype,
        shape: shape.into(),
    }
}

/// A small ResNet as timm names it, for so many channels.
fn cnn(channels: usize) -> Vec<TensorSpec> {
    vec![
        spec("bn1.bias", F32, &[8]),
        spec("bn1.num_batches_tracked", I64, &[]),
        spec("bn1.running_mean", F32, &[8]),
        spec("conv1.0.weight", F32, &[8, channels, 3, 3]),
        spec("layer1.0.conv1.weight", F32, &[4, 3, 1, 1]),
    ]
}

fn prefixed(prefix: &str, specs: Vec<TensorSpec>) -> Vec<TensorSpec> {
    let mut specs = specs;
    for spec in &mut specs {
        spec.name.insert_str(0, prefix);
    }
    specs
}

/// The same CNN inside a stage's model.
fn model() -> Vec<TensorSpec> {
    let mut specs = prefixed("backbone.", cnn(3));
    specs.push(spec("head.bias", F32, &[7]));
    specs.push(spec("head.weight", F32, &[7, 8]));
    specs
}

fn notes(fit: &Fit) -> String {
    let notes: Vec<String> = fit.report.notes.iter().map(ToString::to_string).collect();
    notes.join("; ")
}

#[test]
fn equal_names_go_to_their_places() {
    let mut found = model();
    found.reverse();
    let fit = fit(&model(), &found, Part::Whole);
    assert!(fit.report.keys.is_match());
    assert_eq!(fit.report.to_string(), "7 of 7 tensors loaded");
    for assignment in &fit.assignments {
        assert_eq!(found[assignment.source].name, assignment.target);
        assert_eq!(assignment.channels, None);
    }
    assert!(fit.assignments.is_sorted_by_key(|a| &a.target));
}

#[test]
fn wrappers_prefixes_are_taken_off_in_any_order() {
    for prefix in ["module.", "model.", "module.model.", "_orig_mod.module."] {
        let fit = fit(&cnn(3), &prefixed(prefix, cnn(3)), Part::Whole);
        assert!(fit.report.keys.is_match(), "{prefix}: {}", fit.report);
        assert_eq!(fit.assignments.len(), 5);
        assert!(notes(&fit).contains("taken off 5 names"), "{}", notes(&fit));
    }
    let names: Vec<_> = unwrapped(prefixed("module.", cnn(3)))
        .into_iter()
        .map(|spec| spec.name)
        .collect();
    assert_eq!(names[0], "bn1.bias");
}

#[test]
fn a_prefix_stays_where_two_names_would_become_one() {
    let found = [spec("a", F32, &[1]), spec("module.a", F32, &[1])];
    let fit = fit(&found[..1], &found, Part::Whole);
    assert_eq!(fit.assignments.len(), 1);
    assert_eq!(
        fit.report.to_string(),
        "1 of 1 tensors loaded; 1 unexpected: module.a f32 [1]"
    );
}

#[test]
fn a_bare_cnn_goes_into_a_models_backbone() {
    for prefix in ["", "module."] {
        let mut found = prefixed(prefix, cnn(3));
        found.push(spec(&format!("{prefix}fc.bias"), F32, &[1000]));
        found.push(spec(&format!("{prefix}fc.weight"), F32, &[1000, 8]));
        let fit = fit(&model(), &found, Part::Backbone);
        assert!(fit.report.keys.is_match(), "{}", fit.report);
        assert_eq!(fit.assignments[0].target, "backbone.bn1.bias");
        let said = notes(&fit);
        assert!(said.contains("`backbone.` put before 7 names"), "{said}");
        assert!(
            said.contains(&format!(
                "classifier dropped: {prefix}fc.bias f32 [1000], {prefix}fc.weight f32 [1000, 8]"
            )),
            "{said}"
        );
        assert!(
            said.contains("2 other tensors at initial values (head 2)"),
            "{said}"
        );
    }
}

#[test]
fn a_bare_cnn_is_no_whole_model() {
    let fit = fit(&model(), &cnn(3), Part::Whole);
    assert_eq!(
        fit.report.keys.to_string(),
        "2 missing: head.bias f32 [7], head.weight f32 [7, 8]"
    );
}

#[test]
fn of_a_models_file_a_cnn_takes_the_backbone() {
    for part in [Part::Whole, Part::Backbone] {
        let fit = fit(&cnn(3), &prefixed("module.", model()), part);
        assert!(fit.report.keys.is_match(), "{}", fit.report);
        assert_eq!(fit.assignments.len(), 5);
        let others = vec!["module.head.bias".to_owned(), "module.head.weight".into()];
        assert!(fit.report.notes.contains(&Note::BackboneOf { others }));
    }
}

#[test]
fn another_models_heads_are_left_out_where_the_backbone_is_asked_for() {
    let mut found = prefixed("backbone.", cnn(3));
    found.push(spec("head_box.bias", F32, &[4]));
    let backbone = fit(&model(), &found, Part::Backbone);
    assert!(backbone.report.keys.is_match(), "{}", backbone.report);
    assert_eq!(
        (backbone.report.loaded, backbone.report.expected),
        (5, 5),
        "{}",
        backbone.report
    );
    let whole = fit(&model(), &found, Part::Whole);
    assert_eq!(whole.report.keys.missing.len(), 2);
    assert_eq!(
        whole.report.keys.unexpected,
        [spec("head_box.bias", F32, &[4])]
    );
}

#[test]
fn a_classifier_stays_where_the_model_has_one() {
    let mut expected = cnn(3);
    expected.push(spec("fc.bias", F32, &[1000]));
    let fit = fit(&expected, &expected, Part::Whole);
    assert_eq!(fit.report.to_string(), "6 of 6 tensors loaded");
}

#[test]
fn the_classifier_of_efficientnets_goes_too_and_nothing_of_a_like_name() {
    let mut found = cnn(3);
    found.push(spec("classifier.weight", F32, &[10, 8]));
    found.push(spec("layer1.0.se.fc.weight", F32, &[10, 8]));
    let fit = fit(&cnn(3), &found, Part::Whole);
    assert_eq!(fit.report.keys.unexpected[0].name, "layer1.0.se.fc.weight");
    assert_eq!(fit.report.keys.unexpected.len(), 1);
}

#[test]
fn missing_counters_are_said_and_forgiven() {
    let mut found = cnn(3);
    found.retain(|spec| !spec.name.ends_with("num_batches_tracked"));
    let fit = fit(&cnn(3), &found, Part::Whole);
    assert!(fit.report.keys.is_match());
    assert!(fit.report.notes.contains(&Note::NoCounters { names: 1 }));
    assert_eq!((fit.report.loaded, fit.report.expected), (4, 5));
}

#[test]
fn floats_become_floats_and_integers_integers() {
    for (theirs, ours, fits) in [
        (F16, F32, true),
        (Bf16, F32, true),
        (F64, F32, true),
        (I32, I64, true),
        (I64, F32, false),
        (Bool, F32, false),
        (F32, I64, false),
        (Bool, I64, false),
    ] {
        let fit = fit(
            &[spec("w", ours, &[2])],
            &[spec("w", theirs, &[2])],
            Part::Whole,
        );
        assert_eq!(fit.report.keys.is_match(), fits, "{theirs} {ours}");
        match fits {
            true => assert_eq!(
                notes(&fit),
                format!("1 tensor converted from {theirs} to {ours}")
            ),
            false => assert_eq!(
                fit.report.keys.to_string(),
                format!("1 mismatched: w (expected {ours} [2], found {theirs} [2])")
            ),
        }
    }
}

#[test]
fn the_first_convolution_takes_any_number_of_channels() {
    for channels in [1, 2, 6, 7] {
        let inside = prefixed("backbone.", cnn(channels));
        for (expected, name) in [
            (cnn(channels), "conv1.0.weight"),
            (inside, "backbone.conv1.0.weight"),
        ] {
            let fit = fit(&expected, &cnn(3), Part::Backbone);
            assert!(fit.report.keys.is_match(), "{}", fit.report);
            let adapted: Vec<_> = fit
                .assignments
                .iter()
                .filter(|a| a.channels.is_some())
                .map(|a| (a.target.as_str(), a.channels))
                .collect();
            assert_eq!(adapted, [(name, Some(channels))]);
            assert!(notes(&fit).contains(name), "{}", notes(&fit));
        }
    }
}

#[test]
fn other_channels_are_a_mismatch() {
    for (ours, theirs) in [(3, 1), (6, 1), (3, 6), (1, 6)] {
        let fit = fit(&cnn(ours), &cnn(theirs), Part::Whole);
        assert_eq!(
            fit.report.keys.to_string(),
            format!(
                "1 mismatched: conv1.0.weight (expected f32 [8, {ours}, 3, 3], found f32 [8, {theirs}, 3, 3])"
            )
        );
    }
    // Only the first convolution looks at the image.
    let (mut expected, found) = (cnn(3), cnn(3));
    expected[4].shape[1] = 6;
    let fit = fit(&expected, &found, Part::Whole);
    assert_eq!(fit.report.keys.mismatched[0].name, "layer1.0.conv1.weight");
}
