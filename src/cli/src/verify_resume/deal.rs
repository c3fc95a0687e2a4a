//! The disturbed run: each blow at its moment, and what came of it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

use anyhow::Context;
use launcher::StopSignals;
use serde::Serialize;

use super::course::{Moment, Planned, Weapon};
use super::launched::Launched;
use super::place::{DISTURBED, Place};
use super::ranks;
use super::require_done;
use super::watch::Watch;
use crate::table::or_dash;

/// Exit codes of a launch that was asked to stop (DESIGN.md, "Commands").
const STOPPED: i32 = 75;
const INTERRUPTED: i32 = 143;

/// A blow and what came of it.
#[derive(Debug, Serialize)]
pub struct Blow {
    pub weapon: Weapon,
    /// The moment, as a share of the undisturbed run's time.
    pub share: f64,
    /// The rank that was killed.
    pub rank: Option<usize>,
    /// The last update that was told of before it.
    pub job: Option<String>,
    pub step: Option<u64>,
    /// It found something to strike, and that did not end well all the same.
    pub dealt: bool,
    pub outcome: String,
    /// Updates that were done once more before the next blow.
    pub repeated: u64,
}

impl Blow {
    fn new(planned: &Planned, watch: &Watch) -> Self {
        let (job, step) = watch.update.clone().unzip();
        Blow {
            weapon: planned.weapon,
            share: planned.moment.share,
            rank: None,
            job,
            step,
            dealt: false,
            outcome: "came too late: the run had ended".to_owned(),
            repeated: 0,
        }
    }

    fn dealt(&mut self, outcome: impl Into<String>) {
        self.dealt = true;
        self.outcome = outcome.into();
    }

    pub fn name(&self) -> String {
        match (self.weapon, self.rank) {
            (Weapon::KillRank, Some(rank)) => format!("SIGKILL of rank {rank}"),
            (Weapon::KillRank, None) => "SIGKILL of a rank".to_owned(),
            (Weapon::KillLauncher, _) => "SIGKILL of the launcher".to_owned(),
            (Weapon::Stop, _) => "SIGTERM".to_owned(),
        }
    }

    /// `stage1a-..., step 7`.
    pub fn place(&self) -> String {
        or_dash(self.job.as_ref().map(|job| {
            let step = or_dash(self.step);
            format!("{job}, step {step}")
        }))
    }
}

/// What strikes.
struct Arm<'a> {
    place: &'a Place,
    launched: Launched,
    watch: Watch<'a>,
    random: &'a mut fastrand::Rng,
    signals: &'a mut StopSignals,
}

/// Launches the disturbed run, deals the blows, and goes on with it to its end. What comes after that end is not dealt, and says so.
pub async fn all(
    place: &Place,
    planned_blows: &[Planned],
    watch: Watch<'_>,
    random: &mut fastrand::Rng,
    signals: &mut StopSignals,
    say: &impl Fn(String),
) -> anyhow::Result<Vec<Blow>> {
    let mut arm = Arm {
        place,
        launched: Launched::start(place, DISTURBED)?,
        watch,
        random,
        signals,
    };
    let mut blows: Vec<Blow> = Vec::new();
    let mut ended = None;
    for (number, planned) in (1..).zip(planned_blows) {
        if ended.is_none() {
            ended = arm.reach(&planned.moment).await?;
        }
        arm.watch.look()?;
        credit(&mut blows, &mut arm.watch);
        let mut blow = Blow::new(planned, &arm.watch);
        if ended.is_none() {
            ended = match planned.weapon {
                Weapon::KillRank => arm.kill_rank(&mut blow).await?,
                Weapon::KillLauncher => arm.kill_launcher(&mut blow).await?,
                Weapon::Stop => arm.stop(&mut blow).await?,
            };
        }
        say(format!(
            "{number} of {}: {} at {:.0} % of the run ({}): {}",
            planned_blows.len(),
            blow.name(),
            100.0 * blow.share,
            blow.place(),
            blow.outcome
        ));
        blows.push(blow);
    }
    let ended = match ended {
        Some(ended) => ended,
        None => arm.launched.end(arm.signals).await?,
    };
    require_done(place, DISTURBED, ended)?;
    arm.watch.look()?;
    credit(&mut blows, &mut arm.watch);
    Ok(blows)
}

/// What was done again since the last blow is that one's.
fn credit(blows: &mut [Blow], watch: &mut Watch) {
    let repeated = watch.take_repeated();
    if let Some(blow) = blows.last_mut() {
        blow.repeated += repeated;
    }
}

impl Arm<'_> {
    /// Waits for the moment; the launch's end where it ended before.
    async fn reach(&mut self, moment: &Moment) -> anyhow::Result<Option<ExitStatus>> {
        let watch = &mut self.watch;
        let ended = self.launched.until(self.signals, || {
            watch.look()?;
            Ok(watch.place >= moment.after)
        });
        let ended = ended.await?;
        // Where the run has come further meanwhile, the blow before took longer than the time between the two.
        if ended.is_some() || self.watch.place > moment.after {
            return Ok(ended);
        }
        let reached = Instant::now();
        let is_over = || Ok(reached.elapsed() >= moment.delay);
        self.launched.until(self.signals, is_over).await
    }

    async fn kill_rank(&mut self, blow: &mut Blow) -> anyhow::Result<Option<ExitStatus>> {
        let (failures, finished) = loop {
            // Between two jobs there is none.
            let launcher = self.launched.id();
            let mut alive = Vec::new();
            let ended = self.launched.until(self.signals, || {
                alive = launcher.map(ranks::of).unwrap_or_default();
                Ok(!alive.is_empty())
            });
            if let Some(ended) = ended.await? {
                return Ok(Some(ended));
            }
            self.watch.look()?;
            let before = (self.watch.failures, self.watch.finished);
            if let Some(victim) = self.random.choice(&alive)
                && victim.kill().context("cannot kill a rank")?
            {
                blow.rank = Some(victim.rank);
                break before;
            }
        };
        let watch = &mut self.watch;
        let ended = self.launched.until(self.signals, || {
            watch.look()?;
            Ok(watch.failures > failures || watch.finished > finished)
        });
        let ended = ended.await?;
        self.watch.look()?;
        match self.watch.failures > failures {
            true => blow.dealt("the launcher started its job again"),
            false => blow.outcome = "came too late: its job ended well all the same".to_owned(),
        }
        Ok(ended)
    }

    async fn kill_launcher(&mut self, blow: &mut Blow) -> anyhow::Result<Option<ExitStatus>> {
        self.launched.signal(libc::SIGKILL);
        let ended = self.launched.end(self.signals).await?;
        if ended.signal() != Some(libc::SIGKILL) {
            return Ok(Some(ended));
        }
        blow.dealt("launched again");
        self.launch_again()
    }

    async fn stop(&mut self, blow: &mut Blow) -> anyhow::Result<Option<ExitStatus>> {
        self.launched.signal(libc::SIGTERM);
        let ended = self.launched.end(self.signals).await?;
        match (ended.code(), ended.signal()) {
            (Some(code @ (STOPPED | INTERRUPTED)), _) => {
                blow.dealt(format!("exit {code}, launched again"));
            }
            // Before it listens, a signal ends it as it ends any program.
            (_, Some(libc::SIGTERM)) => blow.dealt("ended as it started up, launched again"),
            _ => return Ok(Some(ended)),
        }
        self.launch_again()
    }

    fn launch_again(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.launched = Launched::start(self.place, DISTURBED)?;
        Ok(None)
    }
}
