//! What a ledger proves of a job: every update's samples are there, are the right ones, and are bound to its checkpoints.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::fault::Fault;
use super::{Chain, Record, Segment, Update};
use crate::sampler::{epoch_order, rank_share, updates_per_epoch};

/// What the plan says of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Hash of the plan up to this job.
    pub job: String,
    pub batch: usize,
    pub epochs: u64,
    /// It has succeeded: its last update must be there.
    pub finished: bool,
}

/// A checkpoint of the job, and the ledger's hash that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub step: u64,
    /// None in a checkpoint from before there were ledgers.
    pub ledger: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Updates 1..=proved are there and made of the samples that they should be.
    pub proved: u64,
    /// Updates in the whole job; 0 where the ledger does not say.
    pub total: u64,
    /// Epochs of which every update is there.
    pub epochs: u64,
    /// Samples of each epoch that its last, uneven batch leaves out.
    pub dropped: usize,
    /// Ranks of each attempt, in order.
    pub world_sizes: Vec<usize>,
    /// Records of updates that were done anew from a checkpoint before them.
    pub voided: usize,
    /// Checkpoints whose hash stands in the ledger at their step.
    pub bound: usize,
    /// Bytes of an unfinished last line.
    pub torn: usize,
    pub faults: Vec<Fault>,
}

impl Audit {
    /// Nothing is wrong: so far as the job has come, all is proved.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

/// An update that counts, with the attempt that did it.
struct Counted<'a> {
    line: usize,
    update: &'a Update,
    segment: &'a Segment,
}

/// Judges a job's ledger.
pub fn audit(chain: &Chain, expected: &Expected, marks: &[Mark]) -> Audit {
    let mut audit = Audit {
        torn: chain.torn,
        faults: chain.breaks.iter().cloned().map(Fault::from).collect(),
        ..Audit::default()
    };
    let effective = replay(chain, &mut audit);
    let Some(first) = segments(chain, expected, &mut audit) else {
        audit.faults.push(Fault::Empty);
        return audit;
    };
    audit.total = first.total_updates;
    let samples = first.samples.len();
    let per_epoch = updates_per_epoch(samples, expected.batch) as u64;
    audit.dropped = samples.saturating_sub(per_epoch as usize * expected.batch);
    let whole = sequence(&effective, expected, &mut audit);
    if per_epoch > 0 {
        let last = effective.keys().next_back().copied().unwrap_or(0);
        for epoch in 0..last.div_ceil(per_epoch) {
            let of_epoch = effective.range(epoch * per_epoch + 1..=(epoch + 1) * per_epoch);
            let of_epoch: Vec<&Counted> = of_epoch.map(|(_, record)| record).collect();
            let is_whole = of_epoch.len() as u64 == per_epoch;
            judge_epoch(epoch, first, &of_epoch, is_whole, &mut audit);
            audit.epochs += u64::from(is_whole);
        }
    }
    bind(chain, marks, &mut audit);
    // What is wrong at a line proves nothing from there on.
    let wrong = |fault: &Fault| effective_step(fault, &effective);
    let first_wrong = audit.faults.iter().filter_map(wrong).min();
    audit.proved = first_wrong.map_or(whole, |step| whole.min(step - 1));
    audit
}

/// The first update that a fault casts doubt on.
fn effective_step(fault: &Fault, effective: &BTreeMap<u64, Counted>) -> Option<u64> {
    match fault {
        Fault::Broken(broken) => effective
            .iter()
            .find(|(_, record)| record.line >= broken.line())
            .map(|(step, _)| *step),
        Fault::Segment { .. } | Fault::SameId { .. } | Fault::Empty => Some(1),
        Fault::OutOfSequence { step, .. }
        | Fault::NoSuchSample { step, .. }
        | Fault::Repeated { step, .. }
        | Fault::Order { step, .. }
        | Fault::Ranks { step, .. } => Some(*step),
        Fault::Missing { first, .. } => Some(*first),
        // Its updates are doubted by the faults that name them.
        Fault::LeftOut { .. } => None,
        Fault::NoMark { .. } | Fault::Unbound { .. } | Fault::Unfinished { .. } => None,
    }
}

/// The updates that count, by step: a segment voids what was done after its beginning.
fn replay<'a>(chain: &'a Chain, audit: &mut Audit) -> BTreeMap<u64, Counted<'a>> {
    let mut effective: BTreeMap<u64, Counted> = BTreeMap::new();
    let mut current: Option<(&Segment, u64)> = None;
    for line in &chain.lines {
        match &line.record {
            Record::Segment(segment) => {
                audit.world_sizes.push(segment.world_size);
                audit.voided += effective.split_off(&(segment.after + 1)).len();
                current = Some((segment, segment.after));
            }
            Record::Update(update) => {
                let before = current.map_or(0, |(_, before)| before);
                let (line, step) = (line.number, update.step);
                if current.is_none() || step != before + 1 {
                    let fault = Fault::OutOfSequence { line, step, before };
                    audit.faults.push(fault);
                }
                if let Some((segment, before)) = &mut current {
                    *before = step;
                    let record = Counted {
                        line,
                        update,
                        segment,
                    };
                    effective.insert(step, record);
                }
            }
        }
    }
    effective
}

/// Holds the attempts that count against the plan and each other; the first of them.
fn segments<'a>(chain: &'a Chain, expected: &Expected, audit: &mut Audit) -> Option<&'a Segment> {
    let all = chain.lines.iter().filter_map(|line| match &line.record {
        Record::Segment(segment) => Some((line.number, segment)),
        Record::Update(_) => None,
    });
    let all: Vec<(usize, &Segment)> = all.collect();
    // The last one that begins at the beginning: those before it are void, and may be another plan's.
    let begin = all.iter().rposition(|(_, segment)| segment.after == 0);
    let all = &all[begin.unwrap_or(0)..];
    let (_, first) = *all.first()?;
    for (line, segment) in all {
        let line = *line;
        let mut compare = |what, found: String, expected: String| {
            if found != expected {
                audit.faults.push(Fault::Segment {
                    line,
                    what,
                    found,
                    expected,
                });
            }
        };
        compare("plan", segment.job.clone(), expected.job.clone());
        compare("seed", segment.seed.to_string(), first.seed.to_string());
        compare(
            "batch",
            segment.batch.to_string(),
            expected.batch.to_string(),
        );
        let per_epoch = updates_per_epoch(first.samples.len(), expected.batch) as u64;
        compare(
            "number of updates in an epoch",
            segment.updates_per_epoch.to_string(),
            per_epoch.to_string(),
        );
        compare(
            "number of updates",
            segment.total_updates.to_string(),
            (per_epoch * expected.epochs).to_string(),
        );
        let ids = |segment: &Segment| segment.samples.len().to_string();
        compare("number of samples", ids(segment), ids(first));
        let named = segment.samples.iter().zip(&first.samples);
        if let Some((found, expected)) = named.into_iter().find(|(a, b)| a != b) {
            compare("list of samples", found.clone(), expected.clone());
        }
    }
    let mut seen = BTreeSet::new();
    if let Some(id) = first.samples.iter().find(|id| !seen.insert(*id)) {
        let (line, id) = (all[0].0, id.clone());
        audit.faults.push(Fault::SameId { line, id });
    }
    Some(first)
}

/// That no update is missing; the last one before which none is.
fn sequence(effective: &BTreeMap<u64, Counted>, expected: &Expected, audit: &mut Audit) -> u64 {
    let (mut before, mut whole) = (0, None);
    for step in effective.keys().copied() {
        if step > before + 1 {
            let (first, last) = (before + 1, step - 1);
            audit.faults.push(Fault::Missing { first, last });
            whole.get_or_insert(before);
        }
        before = step;
    }
    let (last, total) = (before, audit.total);
    if expected.finished && last != total {
        audit.faults.push(Fault::Unfinished { last, total });
    }
    whole.unwrap_or(before)
}

/// That an epoch's samples are the right ones, each once.
fn judge_epoch(
    epoch: u64,
    first: &Segment,
    records: &[&Counted],
    is_whole: bool,
    audit: &mut Audit,
) {
    let ids = &first.samples;
    let order = epoch_order(first.seed, epoch, ids.len());
    let name = |index: &usize| {
        ids.get(*index)
            .cloned()
            .unwrap_or_else(|| index.to_string())
    };
    let mut seen: BTreeMap<usize, u64> = BTreeMap::new();
    for record in records {
        let (line, step) = (record.line, record.update.step);
        for &index in record.update.ranks.iter().flatten() {
            if index >= ids.len() {
                let samples = ids.len();
                audit.faults.push(Fault::NoSuchSample {
                    line,
                    step,
                    index,
                    samples,
                });
            } else if let Some(first) = seen.insert(index, step) {
                let id = name(&index);
                audit.faults.push(Fault::Repeated {
                    line,
                    id,
                    epoch,
                    first,
                    step,
                });
            }
        }
        judge_order(epoch, &order, record, &name, audit);
    }
    if is_whole {
        // All but what the last, uneven batch leaves out.
        let trained = order.len() / first.batch.max(1) * first.batch;
        for index in order[..trained]
            .iter()
            .filter(|index| !seen.contains_key(index))
        {
            let id = name(index);
            audit.faults.push(Fault::LeftOut { epoch, id });
        }
    }
}

/// That each rank loaded its share, in order: the first place where it did not.
fn judge_order(
    epoch: u64,
    order: &[usize],
    record: &Counted,
    name: &impl Fn(&usize) -> String,
    audit: &mut Audit,
) {
    let Segment {
        batch,
        world_size,
        updates_per_epoch,
        ..
    } = *record.segment;
    let Update { step, ranks } = record.update;
    let (line, step) = (record.line, *step);
    if ranks.len() != world_size {
        let (found, expected) = (ranks.len(), world_size);
        audit.faults.push(Fault::Ranks {
            line,
            step,
            found,
            expected,
        });
        return;
    }
    let in_epoch = ((step - 1) % updates_per_epoch.max(1)) as usize;
    for (rank, loaded) in ranks.iter().enumerate() {
        let share = rank_share(order, in_epoch, batch, rank, world_size);
        let length = share.len().max(loaded.len());
        let differs = (0..length).find(|place| share.get(*place) != loaded.get(*place));
        if let Some(place) = differs {
            let named = |list: &[usize]| list.get(place).map_or("nothing".into(), name);
            audit.faults.push(Fault::Order {
                line,
                step,
                epoch,
                rank,
                world_size,
                place,
                found: named(loaded),
                expected: named(&share),
            });
        }
    }
}

/// That each checkpoint holds the ledger's hash at its step.
fn bind(chain: &Chain, marks: &[Mark], audit: &mut Audit) {
    for Mark { step, ledger } in marks {
        let step = *step;
        match ledger {
            None => audit.faults.push(Fault::NoMark { step }),
            Some(hash) if chain.find(step, hash).is_some() => audit.bound += 1,
            Some(hash) => audit.faults.push(Fault::Unbound {
                step,
                hash: hash.clone(),
            }),
        }
    }
}
