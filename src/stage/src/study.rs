//! Stage 3: eight probabilities of a whole study, over the frozen CNN of stage 2.

use std::collections::BTreeMap;
use std::sync::Arc;

use data::StudyUid;
use data::csv_table::write_table;
use data::loader::Dataset;
use data::stack::Stack;
use data::tables::{StudyBox, StudyPrediction};
use metrics::{LABELS, ScoreCounts, area_under_roc, competition_score};
use nn::{Pass, StudyModel};
use recipe::{Fold, StudyModel as StudySettings, Training};
use tch::{Kind, Tensor};
use train::{Execution, Losses, Task, TrainError, full, host, shape, share};

use crate::Result;
use crate::context::{Cohort, Context, Fit, backbone, image_at};
use crate::finished::{Finished, freeze_backbone, load_backbone};
use crate::losses::study_loss;
use crate::windows::SLICES_PER_IMAGE;

/// What the frozen CNN makes of a study, brought to one length.
#[derive(Clone, Debug)]
pub struct StudyFeatures {
    /// (n, F), n at most S
    features: Vec<f32>,
    /// n
    images: usize,
    label: [u8; LABELS],
}

/// Studies as features: the CNN is frozen and images are not augmented, so it runs once for each study.
pub struct FeatureSet {
    studies: Vec<(StudyUid, StudyFeatures)>,
}

impl Dataset for FeatureSet {
    type Sample = StudyFeatures;

    fn len(&self) -> usize {
        self.studies.len()
    }

    fn bytes(&self, index: usize) -> usize {
        size_of_val(self.studies[index].1.features.as_slice())
    }

    fn id(&self, index: usize) -> String {
        self.studies[index].0.to_string()
    }

    fn load(&self, index: usize, _: u64) -> data::Result<StudyFeatures> {
        Ok(self.studies[index].1.clone())
    }
}

/// The model of one fold and seed.
pub struct Stage3<'a> {
    context: &'a Context<'a>,
    execution: &'a Execution,
    model: StudyModel,
    data: Arc<FeatureSet>,
    max_images: usize,
    fold: Fold,
    held_out: Vec<(StudyUid, StudyFeatures)>,
}

impl<'a> Stage3<'a> {
    /// `features`: the stage-2 job whose CNN is taken over.
    pub fn new(
        context: &'a Context<'a>,
        cohort: &Cohort,
        fit: Fit<'a>,
        study: &StudySettings,
        features: Finished,
    ) -> Result<Self> {
        let Fit {
            store,
            training,
            execution,
            fold,
            ..
        } = fit;
        let (hidden, max_images) = (study.lstm_hidden as i64, study.max_images as i64);
        let cnn = backbone(training);
        let model = StudyModel::new(&store.root(), &cnn, Some(hidden), max_images)?;
        execution.lay_out(store)?;
        load_backbone(context.place, store, features)?;
        freeze_backbone(store);

        let boxes = context.study_boxes()?;
        let stacks = context.stacks(training.image_size, Some(&boxes))?;
        let features_of =
            |studies: Vec<StudyUid>, what: &str| -> Result<Vec<(StudyUid, StudyFeatures)>> {
                let extract = |uid: &StudyUid| {
                    let row = boxes.get(uid).ok_or_else(|| no_box(uid))?;
                    let stack = stacks.get(uid)?;
                    context.report_warnings(&stacks);
                    let range = range(row, study.margin);
                    fitted_features(&model, execution, &stack, range, study, training)
                };
                let fitted = shared_features(
                    context,
                    what,
                    &studies,
                    (max_images, model.width()),
                    extract,
                )?;
                studies
                    .into_iter()
                    .zip(fitted)
                    .map(|(uid, (features, images))| {
                        let row = cohort.labels.get(&uid).ok_or_else(|| no_box(&uid))?;
                        Ok((
                            uid,
                            StudyFeatures {
                                features,
                                images,
                                label: row.all(),
                            },
                        ))
                    })
                    .collect()
            };
        let seen = features_of(cohort.training(fold), "features of training studies")?;
        let held_out = features_of(cohort.held_out(fold), "features of held-out studies")?;
        Ok(Stage3 {
            context,
            execution,
            model,
            data: Arc::new(FeatureSet { studies: seen }),
            max_images: max_images as usize,
            fold,
            held_out,
        })
    }

    /// Probabilities of the held-out studies, as jobs/<job>/out_of_fold.csv.
    pub fn out_of_fold(&self, job: &str, step: u64) -> Result<BTreeMap<String, f64>> {
        let Some(fold) = self.fold.held_out() else {
            return Ok(BTreeMap::new());
        };
        let rows = self.predict(fold as u32)?;
        self.show(step, "out_of_fold", &rows);
        if self.context.group.rank() == 0 {
            write_table(&self.context.place.out_of_fold(job), &rows)?;
        }
        Ok(self.metrics(&rows))
    }

    /// Every rank computes all of them: the LSTM over a few hundred vectors is cheaper than sharing it.
    fn predict(&self, fold: u32) -> Result<Vec<StudyPrediction>> {
        let studies: Vec<&StudyUid> = self.held_out.iter().map(|(study, _)| study).collect();
        self.context.each_study(&studies, |place, study| {
            let (features, mask, _) = self.batch(&[&self.held_out[place].1])?;
            let forward = |pass: &Pass| Ok(self.model.forward(&features, &mask, pass)?);
            let logits = self.execution.evaluate(forward)?;
            Ok(StudyPrediction {
                study: study.clone(),
                fold,
                probabilities: probabilities(&logits)?,
            })
        })
    }

    /// Lets people see how well each label is told.
    fn show(&self, step: u64, set: &str, rows: &[StudyPrediction]) {
        for label in 0..LABELS {
            let scored = rows
                .iter()
                .zip(&self.held_out)
                .map(|(row, (_, truth))| (row.probabilities[label], truth.label[label] > 0));
            let name = match label {
                0 => "patient_overall".to_owned(),
                vertebra => format!("C{vertebra}"),
            };
            self.context
                .scores(step, set, &name, ScoreCounts::of(scored));
        }
    }

    fn metrics(&self, rows: &[StudyPrediction]) -> BTreeMap<String, f64> {
        let scored: Vec<_> = rows
            .iter()
            .zip(&self.held_out)
            .map(|(row, (_, truth))| (row.probabilities, truth.label))
            .collect();
        let overall: Vec<_> = scored.iter().map(|(p, y)| (p[0], y[0] > 0)).collect();
        let mut metrics =
            BTreeMap::from([("competition_loss".to_owned(), competition_score(&scored))]);
        if let Some(area) = area_under_roc(&overall) {
            metrics.insert("auc_overall".into(), area);
        }
        metrics
    }

    /// Features (B, S, F), mask (B, S), labels (B, 8) on the device.
    fn batch(&self, studies: &[&StudyFeatures]) -> Result<(Tensor, Tensor, Tensor)> {
        let device = self.context.device;
        let (b, s) = (studies.len(), self.max_images);
        let gather = |of: &dyn Fn(&StudyFeatures) -> Vec<f32>| -> Result<Tensor> {
            let values: Vec<f32> = studies.iter().flat_map(|study| of(study)).collect();
            Ok(Tensor::f_from_slice(&values)?.f_to_device(device)?)
        };
        Ok((
            gather(&|study| {
                let width = study.features.len() / study.images.max(1);
                let padding = std::iter::repeat_n(0.0, (s - study.images) * width);
                study.features.iter().copied().chain(padding).collect()
            })?
            .f_view([b as i64, s as i64, -1])?,
            gather(&|study| {
                (0..s)
                    .map(|i| if i < study.images { 1.0 } else { 0.0 })
                    .collect()
            })?
            .f_view(shape([b, s]))?,
            gather(&|study| study.label.map(f32::from).to_vec())?.f_view(shape([b, LABELS]))?,
        ))
    }
}

fn no_box(study: &StudyUid) -> TrainError {
    TrainError::Tables(format!(
        "study {study} is missing in tables/study_boxes.csv or train.csv: they were made from another data set; launch \
         into another run directory"
    ))
}

/// First and last slice (included) of a study's images.
fn range(row: &StudyBox, margin: u64) -> (usize, usize) {
    let margin = u32::try_from(margin).unwrap_or(u32::MAX);
    let to = row.slice_to.saturating_add(margin).min(row.slice_max);
    (row.slice_from.saturating_sub(margin) as usize, to as usize)
}

/// The features of a study's images between two slices, as (S, F) and mask (S,).
pub(crate) fn fitted_features(
    model: &StudyModel,
    execution: &Execution,
    stack: &Stack,
    (from, to): (usize, usize),
    study: &StudySettings,
    training: &Training,
) -> Result<(Tensor, Tensor)> {
    let side = training.image_size as usize;
    let images = (from..=to)
        .step_by(SLICES_PER_IMAGE)
        .map(|first| image_at(stack, first + 1))
        .collect::<data::Result<Vec<Vec<u8>>>>()?;
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let features = execution.in_parts(&images, study.chunk as usize, |chunk| {
        let count = chunk.len() as i64;
        let mut chunk = chunk.to_vec();
        execution.fill_up(&mut chunk);
        let image = execution.feed(&chunk, None, side)?.f_flatten(0, 1)?;
        let features = execution.evaluate(|_| Ok(model.features(&image)?))?;
        Ok(vec![full(&features.f_narrow(0, 0, count)?)?])
    })?;
    let features = Tensor::f_cat(&features, 0)?;
    Ok(StudyModel::fit(&features, study.max_images as i64)?)
}

/// Sigmoids of one study's logits (1, 8).
pub(crate) fn probabilities(logits: &Tensor) -> Result<[f64; LABELS]> {
    let values = host(&full(logits)?.f_sigmoid()?)?;
    Ok(std::array::from_fn(|j| {
        values.get(j).copied().map_or(f64::NAN, f64::from)
    }))
}

/// Each rank extracts its share; then every rank has all, in the order of `studies`.
fn shared_features(
    context: &Context,
    what: &str,
    studies: &[StudyUid],
    (max_images, width): (i64, i64),
    extract: impl Fn(&StudyUid) -> Result<(Tensor, Tensor)>,
) -> Result<Vec<(Vec<f32>, usize)>> {
    let (rank, world_size) = (context.group.rank(), context.group.world_size());
    let mine: Vec<&StudyUid> = share(studies, context.group).collect();
    let extracted = context.each_study(&mine, |done, study| {
        context.progress(what, done, mine.len());
        Ok((study.clone(), extract(study)?))
    })?;
    let mut own: BTreeMap<StudyUid, _> = extracted.into_iter().collect();
    context.progress(what, mine.len(), mine.len());
    let options = (Kind::Float, context.device);
    let mut all = Vec::with_capacity(studies.len());
    for (i, study) in studies.iter().enumerate() {
        let owner = i % world_size;
        let (features, mask) = match own.remove(study).filter(|_| owner == rank) {
            Some(pair) => pair,
            None => (
                Tensor::f_zeros([max_images, width], options)?,
                Tensor::f_zeros([max_images], options)?,
            ),
        };
        let waiting = train::progress::waiting();
        context.group.broadcast_all(&[&features, &mask], owner)?;
        drop(waiting);
        // On the host, without the padding: a study's share of memory is its length.
        let images = host(&mask)?.iter().filter(|there| **there > 0.0).count();
        let mut features = host(&features)?;
        features.truncate(images * width as usize);
        all.push((features, images));
    }
    Ok(all)
}

impl Task for Stage3<'_> {
    type Data = FeatureSet;

    fn data(&self) -> &Arc<FeatureSet> {
        &self.data
    }

    fn loss(&self, samples: Vec<StudyFeatures>) -> Result<Losses> {
        let (features, mask, label) = self.batch(&samples.iter().collect::<Vec<_>>())?;
        let images = samples.iter().map(|s| s.images).sum();
        let forward = |pass: &Pass| Ok(self.model.forward(&features, &mask, pass)?);
        let logits = self.execution.train(forward)?;
        study_loss(&logits, &label, images)
    }

    fn evaluate(&self, step: u64) -> Result<BTreeMap<String, f64>> {
        let Some(fold) = self.fold.held_out() else {
            return Ok(BTreeMap::new());
        };
        let rows = self.predict(fold as u32)?;
        self.show(step, "held_out", &rows);
        Ok(self.metrics(&rows))
    }
}
