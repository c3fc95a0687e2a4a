//! `spinectl launch --verify-resume`: a recipe is run twice, one of the two runs is killed again and again, and what both hand on is
//! compared to the bit.

mod course;
mod deal;
mod launched;
mod place;
mod ranks;
mod result;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use launcher::{Compared, StopSignals};
use tokio::sync::oneshot;

use course::Course;
use launched::{Interrupted, Launched};
use place::Place;
use result::{Audited, Found, Verified};
use watch::Watch;

use crate::exit::{self, fault, wrong_use};
use crate::{command, output, report, units};

/// What is asked for.
pub struct Request<'a> {
    /// The resolved recipe: both runs are launched from it, whatever becomes of the file meanwhile.
    pub recipe: &'a recipe::Recipe,
    /// The folder in which both runs are made.
    pub folder: &'a Path,
    pub kills: usize,
    /// None: drawn.
    pub seed: Option<u64>,
    /// Say what is being done.
    pub talk: bool,
    pub json: bool,
}

pub fn run(request: &Request) -> anyhow::Result<u8> {
    if request.recipe.retries == 0 {
        return Err(wrong_use(
            "--verify-resume kills ranks, and with `retries: 0` a job does not survive that: add --set retries=1",
        ));
    }
    let place = Place::make(request.folder, request.recipe)?;
    // Short enough to be typed.
    let seed = request.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
    let verified = match command::block_on(verify(request, &place, seed))? {
        Ok(verified) => verified,
        Err(error) => {
            let Some(Interrupted(signal)) = error.downcast_ref::<Interrupted>() else {
                return Err(error);
            };
            output::say(&format!(
                "interrupted by signal {signal}: nothing is proved, and nothing is left running. What was done is in {}",
                request.folder.display()
            ));
            return Ok(exit::of(128 + signal));
        }
    };
    match request.json {
        true => output::print_json(&verified)?,
        false => output::print(&verified.text())?,
    }
    Ok(match verified.is_proved() {
        true => exit::DONE,
        false => exit::FAILED,
    })
}

async fn verify(request: &Request<'_>, place: &Place, seed: u64) -> anyhow::Result<Verified> {
    let mut signals = StopSignals::listen().context("cannot handle signals")?;
    let say = |line: String| {
        if request.talk {
            output::say(&line);
        }
    };
    let kills = units::count(request.kills, "kill", "kills");
    say(format!(
        "{kills} at moments drawn from --verify-seed {seed}"
    ));
    let follow = |name: &str| {
        let run = place.run(name);
        format!("follow it: spinectl status {} --watch", run.display())
    };

    say(format!(
        "1 of 2: undisturbed; {}",
        follow(place::UNDISTURBED)
    ));
    let began = event::now();
    let clock = Instant::now();
    let mut launched = Launched::start(place, place::UNDISTURBED)?;
    let ended = launched.end(&mut signals).await?;
    require_done(place, place::UNDISTURBED, ended)?;
    let undisturbed_seconds = clock.elapsed().as_secs_f64();
    let events = watch::events(&place.run(place::UNDISTURBED))?;
    let course = Course::of(&events, began);

    say(format!("2 of 2: disturbed; {}", follow(place::DISTURBED)));
    let clock = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let blows = course::draw(&course, request.kills, &mut random);
    let watch = Watch::new(&place.run(place::DISTURBED), &course);
    let blows = deal::all(place, &blows, watch, &mut random, &mut signals, &say).await?;
    let disturbed_seconds = clock.elapsed().as_secs_f64();

    let runs = [place::UNDISTURBED, place::DISTURBED].map(|name| place.run(name));
    let (compared, audits) = compare(runs, &mut signals).await?;
    let found = Found {
        folder: request.folder.to_owned(),
        seed,
        undisturbed_seconds,
        disturbed_seconds,
        blows,
        compared,
        audits,
    };
    Ok(found.into())
}

/// Compares and audits both runs: on a thread of its own, as that may take minutes and a signal ends it at once.
async fn compare(
    runs: [PathBuf; 2],
    signals: &mut StopSignals,
) -> anyhow::Result<(Vec<Compared>, Vec<Audited>)> {
    let (tell, told) = oneshot::channel();
    let compare = move || {
        let [undisturbed, disturbed] = &runs;
        let found = launcher::compare(undisturbed, disturbed).map_err(anyhow::Error::from);
        let found = found.and_then(|compared| Ok((compared, result::audits(&runs)?)));
        // Nobody listens where a signal has come.
        let _ = tell.send(found);
    };
    thread::Builder::new()
        .name("compare".into())
        .spawn(compare)
        .context("cannot start a thread that compares the runs")?;
    tokio::select! {
        signal = signals.next() => Err(Interrupted(signal).into()),
        found = told => found.context("the comparison of the runs broke down")?,
    }
}

/// A launch that ended by itself must have ended well: else there is nothing to compare.
fn require_done(place: &Place, name: &str, ended: ExitStatus) -> anyhow::Result<()> {
    if ended.success() {
        return Ok(());
    }
    Err(fault(
        ended.code().map_or(exit::FAILED, exit::of),
        format!(
            "the {name} run ended with {ended}: nothing is proved. {}",
            report::quoted_log(&place.log(name)).trim_end()
        ),
    ))
}
