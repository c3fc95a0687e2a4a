//! Which models stage 3 trains: one over the CNN of each stage-2 model, with its seeds.

use crate::model::{Stage2, Training};
use crate::models::Model;
use crate::section::Section;

/// A model of stage 2: the name that it was given, and its settings.
type Cnn<'m> = (Option<&'m str>, &'m Training);

/// The models whose CNNs stage 3 takes over.
pub(crate) fn below(stage2: &Stage2) -> Vec<Cnn<'_>> {
    match stage2.models.as_slice() {
        [] => vec![(None, &stage2.training)],
        models => models
            .iter()
            .map(|model| (model.name.as_deref(), &model.training))
            .collect(),
    }
}

/// `base` over each of several CNNs, where stage 3 has no list of models of its own.
pub(crate) fn over_each(section: &Section, base: &Training, cnns: &[Cnn<'_>]) -> Vec<Model> {
    let over = |(name, cnn): &Cnn<'_>| {
        let mut training = base.clone();
        take_over(section, &mut training, cnn);
        Model::new(section, name.map(str::to_owned), base, training)
    };
    cnns.iter().filter_map(over).collect()
}

/// An entry of stage 3's own list takes over the CNN of the same name.
pub(crate) fn take_over_named(
    section: &Section,
    name: Option<&str>,
    training: &mut Training,
    cnns: &[Cnn<'_>],
) {
    // As `Model::label` has it.
    let called = |name: Option<&str>, training: &Training| {
        name.map_or_else(|| training.arch.clone(), str::to_owned)
    };
    let own = called(name, training);
    match cnns.iter().find(|(name, cnn)| called(*name, cnn) == own) {
        Some((_, cnn)) => take_over(section, training, cnn),
        None => {
            let known: Vec<String> = cnns.iter().map(|(name, cnn)| called(*name, cnn)).collect();
            section.refuse(
                match name {
                    Some(_) => "name",
                    None => "arch",
                },
                format!("stage 2 trains no model that is called `{own}`, and stage 3 takes over stage 2's CNNs"),
                format!("write one of: {}", known.join(", ")),
            );
        }
    }
}

/// The architecture and the seeds are the CNN's; where they are written all the same, they say the same.
pub(crate) fn take_over(section: &Section, training: &mut Training, cnn: &Training) {
    if section.has("arch") && training.arch != cnn.arch {
        section.refuse(
            "arch",
            format!(
                "stage 3 takes over stage 2's CNN, and that is a {}",
                cnn.arch
            ),
            "take arch out of stage3: stage 2's is meant where there is none".into(),
        );
    }
    if section.has("seeds") && training.seeds != cnn.seeds {
        section.refuse(
            "seeds",
            format!(
                "stage 3 trains one model for each of stage 2's, with its seed, and those are {:?}",
                cnn.seeds
            ),
            "take seeds out of stage3; more of them in stage2 make more models of both".into(),
        );
    }
    training.arch.clone_from(&cnn.arch);
    training.seeds.clone_from(&cnn.seeds);
}
