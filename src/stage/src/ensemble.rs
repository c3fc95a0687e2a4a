//! A run's finished models on one device: what a prediction takes the mean over.

use nn::{Localizer, NnError, SliceHeads, SliceModel, StudyModel};
use recipe::{Sequence, StudyModel as StudySettings, Training};
use tch::Device;
use tch::nn::{Path, VarStore};
use train::{Execution, ExecutionConfig};

use crate::Result;
use crate::context::backbone;
use crate::finished::{Finished, load_finished};
use crate::place::RunPlace;
use crate::windows::WindowShape;

/// A run's finished models on one device.
pub struct Models<'a> {
    pub data: &'a recipe::Data,
    pub device: Device,
    pub(crate) localizers: Vec<Member<'a, Localizer>>,
    pub(crate) slices: Vec<SliceMember<'a>>,
    pub(crate) studies: Vec<(Member<'a, StudyModel>, &'a StudySettings)>,
    /// Their jobs.
    pub(crate) names: Vec<String>,
    /// The variables of all of them: dropped last.
    stores: Vec<VarStore>,
}

/// One model, ready to run.
pub(crate) struct Member<'a, M> {
    pub model: M,
    pub execution: Execution,
    pub training: &'a Training,
}

/// One model of stage 1b or 2, with what it takes and tells.
pub(crate) struct SliceMember<'a> {
    pub member: Member<'a, SliceModel>,
    pub heads: SliceHeads,
    pub window: WindowShape,
    /// It sees the study's box only.
    pub crop: bool,
}

impl<'a> Models<'a> {
    pub fn new(data: &'a recipe::Data, device: Device) -> Self {
        Models {
            data,
            device,
            localizers: Vec::new(),
            slices: Vec::new(),
            studies: Vec::new(),
            names: Vec::new(),
            stores: Vec::new(),
        }
    }

    /// Adds a localizer with the weights that its job ended with.
    pub fn add_localizer(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
    ) -> Result<()> {
        let member = self.load(place, finished, training, |path| {
            Localizer::new(path, &backbone(training))
        })?;
        self.localizers.push(member);
        Ok(())
    }

    /// Adds a model of stage 1b; with `crop` it sees the study's box only.
    pub fn add_ratio_model(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
        (sequence, crop): (&Sequence, bool),
    ) -> Result<()> {
        let heads = SliceHeads::Ratio;
        self.add_slice_model(place, finished, training, (heads, sequence, crop))
    }

    /// Adds a model of stage 2, which sees the study's box only.
    pub fn add_fracture_model(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
        sequence: &Sequence,
    ) -> Result<()> {
        let heads = SliceHeads::Fracture;
        self.add_slice_model(place, finished, training, (heads, sequence, true))
    }

    fn add_slice_model(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
        (heads, sequence, crop): (SliceHeads, &Sequence, bool),
    ) -> Result<()> {
        let hidden = sequence.lstm_hidden.map(|n| n as i64);
        let member = self.load(place, finished, training, |path| {
            SliceModel::new(path, &backbone(training), hidden, heads)
        })?;
        self.slices.push(SliceMember {
            member,
            heads,
            window: WindowShape::of(sequence),
            crop,
        });
        Ok(())
    }

    /// Adds a study model with the weights that its job ended with.
    pub fn add_study_model(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
        study: &'a StudySettings,
    ) -> Result<()> {
        let (hidden, length) = (study.lstm_hidden as i64, study.max_images as i64);
        let member = self.load(place, finished, training, |path| {
            StudyModel::new(path, &backbone(training), Some(hidden), length)
        })?;
        self.studies.push((member, study));
        Ok(())
    }

    fn load<M>(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
        make: impl FnOnce(&Path) -> std::result::Result<M, NnError>,
    ) -> Result<Member<'a, M>> {
        let store = VarStore::new(self.device);
        let model = make(&store.root())?;
        let execution = self.execution(&store, training)?;
        load_finished(place, &store, finished)?;
        self.names.push(finished.job.to_owned());
        self.stores.push(store);
        Ok(Member {
            model,
            execution,
            training,
        })
    }

    /// A model runs on a GPU as it did while it was trained; on a CPU in f32, whatever that was: there it is both faster
    /// and nearer to the weights.
    fn execution(&self, store: &VarStore, training: &Training) -> Result<Execution> {
        let config = match self.device {
            Device::Cpu => ExecutionConfig::plain(self.device),
            _ => ExecutionConfig::of(&training.numerics, &training.arch, self.device)?,
        };
        let execution = Execution::new(config);
        execution.lay_out(store)?;
        Ok(execution)
    }

    /// Whether a study can be taken from pixels to probabilities.
    pub fn are_complete(&self) -> bool {
        !self.localizers.is_empty() && !self.studies.is_empty()
    }
}
