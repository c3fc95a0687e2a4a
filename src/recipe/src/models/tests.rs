use crate::{ARCHITECTURES, Recipe, RecipeError, Source, parse, to_yaml};

const TWO: &str = "\
data: {root: d, folds: 2}
stage2:
  training: {epochs: 4, optimizer: sgd, momentum: 0.8, pretrained: a.safetensors, gpus: auto}
  models:
    - {arch: resnest14d, seeds: [0, 1], augment: {flip: 0}}
    - name: wide
      arch: resnest14d
      image_size: 256
      optimizer: adamw
      momentum:
      pretrained:
      gpus: all
";

fn read(text: &str, set: &[&str]) -> Result<Recipe, RecipeError> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let source = Source {
        name: "r.yaml".into(),
        text: text.into(),
    };
    parse(&source, &set)
}

fn refused(text: &str, set: &[&str]) -> String {
    read(text, set).unwrap_err().to_string()
}

#[test]
fn an_entry_lies_over_what_the_models_share() {
    let recipe = read(TWO, &[]).unwrap();
    let models = recipe.models("2");
    let paths: Vec<_> = models.iter().map(|m| (m.path.as_str(), m.label)).collect();
    assert_eq!(
        paths,
        [
            ("stage2.models.0", "resnest14d"),
            ("stage2.models.1", "wide")
        ]
    );
    let [narrow, wide] = [models[0].training, models[1].training];
    assert_eq!((narrow.epochs, wide.epochs), (4, 4));
    assert_eq!((narrow.image_size, wide.image_size), (512, 256));
    assert_eq!(
        (narrow.seeds.as_slice(), wide.seeds.as_slice()),
        (&[0, 1][..], &[0][..])
    );
    // Of a section in an entry, only what is written there is replaced.
    assert_eq!((narrow.augment.flip, narrow.augment.rotate), (0.0, 20.0));
    assert_eq!((wide.pretrained.as_ref(), wide.augment.flip), (None, 0.5));
}

#[test]
fn without_a_list_a_stage_has_one_model() {
    let recipe = read("data: {root: d}\nstage2: {}\n", &[]).unwrap();
    let models = recipe.models("2");
    assert_eq!(models.len(), 1);
    assert_eq!(
        (models[0].path.as_str(), models[0].label),
        ("stage2.training", "resnest50d")
    );
    assert!(recipe.models("1a").is_empty() && recipe.models("4").is_empty());
    assert!(!to_yaml(&recipe).unwrap().contains("models"));
}

#[test]
fn a_resolved_list_reads_back_to_itself_and_goes_on_to_share() {
    let recipe = read(TWO, &["stage3={}"]).unwrap();
    let yaml = to_yaml(&recipe).unwrap();
    assert_eq!(read(&yaml, &[]).unwrap(), recipe, "{yaml}");
    let again = read(&yaml, &["stage2.training.epochs=9"]).unwrap();
    let epochs: Vec<u64> = again
        .models("2")
        .iter()
        .map(|m| m.training.epochs)
        .collect();
    assert_eq!(epochs, [9, 9], "{yaml}");
}

#[test]
fn set_reaches_one_model_by_its_number() {
    let recipe = read(TWO, &["stage2.models.1.epochs=9"]).unwrap();
    let epochs: Vec<u64> = recipe
        .models("2")
        .iter()
        .map(|m| m.training.epochs)
        .collect();
    assert_eq!(epochs, [4, 9]);
    let error = refused(TWO, &["stage2.models.2.epochs=9"]);
    assert!(
        error.contains("stage2.models: expected a list of models"),
        "{error}"
    );
}

#[test]
fn two_models_of_one_name_are_refused() {
    let error = refused(
        &TWO.replace("    - name: wide\n      arch", "    - arch"),
        &[],
    );
    assert!(
        error.contains("r.yaml:6:7: stage2.models.1: it is called `resnest14d`, as models.0 is"),
        "{error}"
    );
    assert!(error.contains("name: resnest14d-b"), "{error}");
    let error = refused(TWO, &["stage2.models.1.name=A b"]);
    assert!(
        error.contains("stage2.models.1.name: `A b` cannot be part"),
        "{error}"
    );
    // A stage may call a model as another stage does.
    assert!(read(TWO, &["stage1a.models=[{name: wide}]"]).is_ok());
}

#[test]
fn faults_of_an_entry_are_told_where_they_stand_and_shared_ones_once() {
    let text = TWO
        .replace("epochs: 4", "epoch: 4")
        .replace("image_size", "imagesize");
    let Err(RecipeError::Faults(faults)) = read(&text, &[]) else {
        panic!("it is accepted")
    };
    let told: Vec<String> = faults
        .iter()
        .map(|fault| format!("{} {}", fault.place, fault.path))
        .collect();
    assert_eq!(
        told,
        [
            "r.yaml:3:14 stage2.training.epoch",
            "r.yaml:8:7 stage2.models.1.imagesize"
        ]
    );
    // What is wrong only together with what is shared.
    let error = refused(TWO, &["stage2.models.0.micro_batch=5"]);
    assert!(
        error.contains(
            "--set stage2.models.0.micro_batch=5: stage2.models.0.micro_batch: a batch of 48"
        ),
        "{error}"
    );
    for wrong in ["[]", "resnest14d", "{arch: resnest14d}"] {
        let error = refused(TWO, &[&format!("stage2.models={wrong}")]);
        assert!(
            error.contains("stage2.models: expected a list"),
            "{wrong}: {error}"
        );
    }
    let error = refused(TWO, &["stage2.models=[resnest14d]"]);
    assert!(
        error.contains("stage2.models.0: expected a section"),
        "{error}"
    );
}

#[test]
fn an_architecture_that_is_not_there_is_refused_with_the_nearest() {
    let error = refused(
        "data: {root: d}\nstage1a:\n  training: {arch: resnet50d}\n",
        &[],
    );
    assert!(
        error.contains("r.yaml:3:20: stage1a.training.arch")
            && error.contains("did you mean `resnest50d`?"),
        "{error}"
    );
    let error = refused(TWO, &["stage2.models.1.arch=vit"]);
    assert!(error.contains(&ARCHITECTURES.join(", ")), "{error}");
}

#[test]
fn stage_3_takes_architecture_and_seeds_from_stage_2() {
    let single =
        "data: {root: d}\nstage2: {training: {arch: resnest14d, seeds: [3, 4]}}\nstage3: {}\n";
    let recipe = read(single, &[]).unwrap();
    let stage3 = recipe.stage3.clone().unwrap().training;
    assert_eq!(
        (stage3.arch.as_str(), stage3.seeds.as_slice()),
        ("resnest14d", &[3, 4][..])
    );
    assert_eq!(read(&to_yaml(&recipe).unwrap(), &[]).unwrap(), recipe);

    // What is written all the same says the same.
    assert!(read(single, &["stage3.training.seeds=[3, 4]"]).is_ok());
    let error = refused(single, &["stage3.training.seeds=[0]"]);
    assert!(
        error.contains("stage3.training.seeds: stage 3 trains one model for each of stage 2's")
            && error.contains("[3, 4]"),
        "{error}"
    );
    let error = refused(single, &["stage3.training.arch=resnest26d"]);
    assert!(
        error.contains("stage3.training.arch") && error.contains("a resnest14d"),
        "{error}"
    );
    // A stage that is not run is not held against another.
    assert!(read(single, &["stage3.training.arch=resnest26d", "stages=['2']"]).is_ok());
}

#[test]
fn stage_3_has_a_model_over_each_of_stage_2s_or_over_those_that_it_lists() {
    let recipe = read(TWO, &["stage3.training.epochs=7"]).unwrap();
    let models = recipe.models("3");
    let of: Vec<_> = models
        .iter()
        .map(|m| {
            (
                m.label,
                m.training.arch.as_str(),
                m.training.seeds.len(),
                m.training.epochs,
            )
        })
        .collect();
    assert_eq!(
        of,
        [
            ("resnest14d", "resnest14d", 2, 7),
            ("wide", "resnest14d", 1, 7)
        ]
    );
    assert_eq!(read(&to_yaml(&recipe).unwrap(), &[]).unwrap(), recipe);

    let one = "stage3.models=[{name: wide, image_size: 256}]";
    let recipe = read(TWO, &[one]).unwrap();
    let models = recipe.models("3");
    assert_eq!(
        (models.len(), models[0].label, models[0].training.image_size),
        (1, "wide", 256)
    );
    let error = refused(TWO, &["stage3.models=[{name: tall}]"]);
    assert!(
        error.contains("stage3.models.0.name: stage 2 trains no model that is called `tall`")
            && error.contains("resnest14d, wide"),
        "{error}"
    );
    let error = refused(TWO, &["stage3.models=[{arch: resnest14d, seeds: [5]}]"]);
    assert!(error.contains("stage3.models.0.seeds"), "{error}");
    let error = refused(TWO, &["stage3.models=[{name: wide, drop_rate: 0.5}]"]);
    assert!(error.contains("stage3.models.0.drop_rate"), "{error}");
}
