use super::*;
use crate::Fold;
use crate::telemetry::{OtlpProtocol, Telemetry};

fn read(text: &str, set: &[&str]) -> Result<Recipe, RecipeError> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    parse(
        &Source {
            name: "r.yaml".into(),
            text: text.into(),
        },
        &set,
    )
}

const SMALL: &str = "data:\n  root: d\n  folds: 2\nstage2:\n  training:\n    epochs: 4\n";

#[test]
fn absent_keys_take_the_published_numbers() {
    let recipe = read(SMALL, &[]).unwrap();
    let stage2 = recipe.stage2.unwrap();
    assert_eq!(stage2.training.epochs, 4);
    assert_eq!(
        (stage2.training.batch, stage2.training.micro_batch),
        (48, 3)
    );
    assert_eq!(stage2.sequence.images, 32);
    assert_eq!(recipe.stages, ["2"]);
    assert_eq!(recipe.folds, [0, 1].map(Fold::HeldOut));
}

#[test]
fn gpus_of_a_job_are_all_auto_or_a_number() {
    for (text, gpus) in [
        ("all", Gpus::All),
        ("auto", Gpus::Auto),
        ("2", Gpus::Count(2)),
    ] {
        let recipe = read(SMALL, &[&format!("stage2.training.gpus={text}")]).unwrap();
        assert_eq!(recipe.stage2.as_ref().unwrap().training.gpus, gpus);
        let yaml = to_yaml(&recipe).unwrap();
        let again = read(&yaml, &[]).unwrap();
        assert_eq!(again.stage2.unwrap().training.gpus, gpus, "{yaml}");
    }
    assert_eq!(
        read(SMALL, &[]).unwrap().stage2.unwrap().training.gpus,
        Gpus::All
    );
    for wrong in ["0", "some", "1.5"] {
        let error = read(SMALL, &[&format!("stage2.training.gpus={wrong}")]).unwrap_err();
        assert!(
            error.to_string().contains("stage2.training.gpus"),
            "{error}"
        );
    }
}

#[test]
fn each_stage_distorts_as_published() {
    let recipe = read(SMALL, &["stage1a={}", "stage1b={}", "stage3={}"]).unwrap();
    let of = |training: Training| training.augment;
    let stage2 = of(recipe.stage2.unwrap().training);
    assert_eq!((stage2.distortion, stage2.grid_steps), (0.5, 5));
    assert_eq!((stage2.elastic_alpha, stage2.elastic_sigma), (1.0, 50.0));
    assert_eq!(stage2.grid_limit, 0.05);
    assert_eq!(of(recipe.stage1b.unwrap().training), stage2);
    assert_eq!(of(recipe.stage1a.unwrap().training).distortion, 0.0);
    assert_eq!(of(recipe.stage3.unwrap().training).distortion, 0.0);
}

#[test]
fn a_distortion_that_folds_the_image_is_refused_and_stage_3_has_none() {
    let steep = [
        "stage2.training.augment.elastic_alpha=120",
        "stage2.training.augment.elastic_sigma=10",
    ];
    let error = read(SMALL, &steep).unwrap_err().to_string();
    assert!(
        error.contains("stage2.training.augment.elastic_alpha")
            && error.contains("at most elastic_sigma squared, 100"),
        "{error}"
    );
    assert!(read(SMALL, &[steep[0]]).is_ok());
    let error = read(SMALL, &["stage3.training.augment.distortion=0.1"]).unwrap_err();
    assert!(error.to_string().contains("augmentation has no place"));
}

#[test]
fn set_overlays_by_path_and_makes_sections() {
    let recipe = read(SMALL, &["stage2.training.epochs=9", "checkpoint.every=7"]).unwrap();
    assert_eq!(recipe.stage2.unwrap().training.epochs, 9);
    assert_eq!(recipe.checkpoint.every, 7);
}

#[test]
fn which_checkpoints_stay_is_read_and_checked() {
    let best = "checkpoint.keep_best={ratio_mae: min, study_box_iou: max}";
    let recipe = read(SMALL, &["checkpoint.keep_every=200", best]).unwrap();
    let keep_best: Vec<_> = recipe.checkpoint.keep_best.into_iter().collect();
    let [min, max] = [("ratio_mae", Mode::Min), ("study_box_iou", Mode::Max)];
    assert_eq!(
        keep_best,
        [min, max].map(|(name, mode)| (name.to_owned(), mode))
    );
    assert_eq!(recipe.checkpoint.keep_every, 200);
    assert!(recipe.checkpoint.asynchronous);
    assert_eq!(recipe.checkpoint.shards, Shards::Auto);
    for (word, shards) in [("on", Shards::On), ("off", Shards::Off)] {
        let recipe = read(SMALL, &[&format!("checkpoint.shards={word}")]).unwrap();
        assert_eq!(recipe.checkpoint.shards, shards);
    }

    let set = [
        "checkpoint.keep_every=150",
        "checkpoint.keep_best={loss: low}",
    ];
    let error = read(SMALL, &set).unwrap_err().to_string();
    assert!(error.contains("150 is no multiple of that"), "{error}");
    assert!(
        error.contains("checkpoint.keep_best.loss") && error.contains("min, max"),
        "{error}"
    );
}

#[test]
fn an_unknown_key_is_named_with_line_and_nearest_known_one() {
    let error = read(&SMALL.replace("epochs", "epoch"), &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("r.yaml:6:5: stage2.training.epoch: unknown key"),
        "{error}"
    );
    assert!(error.contains("did you mean `epochs`?"), "{error}");
}

#[test]
fn several_faults_are_reported_together() {
    let text = "data:\n  root: d\n  folds: one\nstage2:\n  training:\n    learning_rate: -1\n    micro_batch: 5\n  sequenc: {}\nfolds: [7]\n";
    let error = read(text, &["stage2.sequence.position=nowhere"]).unwrap_err();
    let RecipeError::Faults(faults) = &error else {
        panic!("{error}")
    };
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    for path in [
        "data.folds",
        "stage2.training.learning_rate",
        "stage2.training.micro_batch",
        "stage2.sequence.position",
        "stage2.sequenc",
        "folds",
    ] {
        assert!(paths.contains(&path), "{path} is not among {paths:?}");
    }
    assert!(
        error
            .to_string()
            .contains("--set stage2.sequence.position=nowhere")
    );
}

#[test]
fn a_resolved_recipe_reads_back_to_itself() {
    let recipe = read(
        SMALL,
        &["stage2.training.clip_norm=1", "stage3={}", "name='a: b'"],
    )
    .unwrap();
    let yaml = to_yaml(&recipe).unwrap();
    assert_eq!(read(&yaml, &[]).unwrap(), recipe, "{yaml}");
}

#[test]
fn pretrained_weights_are_a_path_and_no_second_start() {
    let path = "stage2.training.pretrained=weights/a.safetensors";
    let recipe = read(SMALL, &[path]).unwrap();
    let pretrained = recipe.stage2.clone().unwrap().training.pretrained;
    assert_eq!(pretrained, Some(PathBuf::from("weights/a.safetensors")));
    assert_eq!(read(&to_yaml(&recipe).unwrap(), &[]).unwrap(), recipe);
    // Nothing takes it away again, as it does for any key.
    let cleared = read(SMALL, &[path, "stage2.training.pretrained="]).unwrap();
    assert_eq!(cleared.stage2.unwrap().training.pretrained, None);

    let text = SMALL.replace(
        "epochs: 4",
        "pretrained: a.safetensors\n    start_from: stage1b",
    );
    let error = read(&text, &[]).unwrap_err().to_string();
    assert!(
        error.contains("r.yaml:6:5: stage2.training.pretrained: `start_from` already says"),
        "{error}"
    );
}

#[test]
fn a_cache_is_only_where_a_folder_is_named() {
    let recipe = read(SMALL, &[]).unwrap();
    assert_eq!(recipe.data.cache, Cache::default());
    assert_eq!(recipe.data.cache.dir, None);
    let set = ["data.cache.dir=c", "data.cache.volumes=true"];
    let recipe = read(SMALL, &set).unwrap();
    assert_eq!(recipe.data.cache.dir, Some(PathBuf::from("c")));
    assert!(recipe.data.cache.volumes);
    assert_eq!(read(&to_yaml(&recipe).unwrap(), &[]).unwrap(), recipe);

    let error = read(SMALL, &["data.cache.limit_gb=0"]).unwrap_err();
    assert!(error.to_string().contains("data.cache.limit_gb"), "{error}");
}

#[test]
fn logs_are_kept_in_bounds_and_a_run_is_private_where_it_says_so() {
    let recipe = read(SMALL, &[]).unwrap();
    assert_eq!(
        (recipe.private, recipe.logs.clone()),
        (false, Logs::default())
    );
    let recipe = read(SMALL, &["private=true", "logs.keep=9"]).unwrap();
    assert!(recipe.private && recipe.logs.keep == 9);
    assert_eq!(read(&to_yaml(&recipe).unwrap(), &[]).unwrap(), recipe);
    let error = read(SMALL, &["logs.max_mb=0", "private=perhaps"]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("logs.max_mb") && error.contains("private"),
        "{error}"
    );
}

#[test]
fn pictures_are_few_and_histograms_are_asked_for() {
    let recipe = read(SMALL, &[]).unwrap();
    assert_eq!(recipe.tensorboard, Tensorboard::default());
    let recipe = read(
        SMALL,
        &["tensorboard.pictures=0", "tensorboard.histograms=true"],
    )
    .unwrap();
    assert!(recipe.tensorboard.pictures == 0 && recipe.tensorboard.histograms);
    assert_eq!(read(&to_yaml(&recipe).unwrap(), &[]).unwrap(), recipe);
    let error = read(SMALL, &["tensorboard.pictures=17"]).unwrap_err();
    assert!(
        error.to_string().contains("tensorboard.pictures"),
        "{error}"
    );
}

#[test]
fn stage_3_takes_no_pretrained_weights() {
    let error = read(SMALL, &["stage3.training.pretrained=a.safetensors"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("stage 3 has stage 2's CNN") && error.contains("stage2.training.pretrained"),
        "{error}"
    );
}

#[test]
fn broken_yaml_names_the_line() {
    let error = read("data:\n  root: [\n", &[]).unwrap_err().to_string();
    assert!(
        error.contains("r.yaml") && error.contains("not valid YAML"),
        "{error}"
    );
}

#[test]
fn a_collector_is_named_by_an_address() {
    let telemetry = read(SMALL, &[]).unwrap().telemetry;
    assert_eq!(telemetry, Telemetry::default());
    let recipe = read(
        SMALL,
        &[
            "telemetry.otlp={endpoint: http://localhost:4318, protocol: http}",
            "telemetry.sample_steps=7",
            "telemetry.metrics_port=9464",
        ],
    );
    let recipe = recipe.unwrap();
    let Telemetry {
        otlp: Some(otlp),
        sample_steps: 7,
        metrics_port: Some(9464),
    } = &recipe.telemetry
    else {
        panic!("{:?}", recipe.telemetry);
    };
    assert_eq!(otlp.endpoint, "http://localhost:4318");
    assert_eq!(otlp.protocol, Some(OtlpProtocol::Http));
    let again = read(&to_yaml(&recipe).unwrap(), &[]).unwrap();
    assert_eq!(again.telemetry, recipe.telemetry);
    for wrong in [
        "{}",
        "{endpoint: localhost:4317}",
        "{endpoint: \"http://\"}",
    ] {
        let error = read(SMALL, &[&format!("telemetry.otlp={wrong}")]).unwrap_err();
        assert!(
            error.to_string().contains("telemetry.otlp.endpoint"),
            "{error}"
        );
    }
}
