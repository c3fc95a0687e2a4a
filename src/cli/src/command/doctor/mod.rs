//! `spinectl doctor`: whether this machine, this recipe and its data can make a run, and what to do where not.

mod check;
mod data;
mod disk;
mod machine;
mod network;
mod ranks;

use std::path::{Path, PathBuf};

use clap::Args;
use recipe::{Device, Recipe};
use serde::Serialize;

use check::{About, Check, State};

use crate::pretrained::Pretrained;
use crate::recipe_arguments::RecipeArguments;
use crate::table::{self, Column};
use crate::{batch, exit, output, units};

/// Look at GPUs, libtorch, network, disk, limits, recipe and data before a run does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl doctor
  spinectl doctor configs/demo.yaml --device cpu --ranks 2 --run-dir runs/demo
  spinectl doctor --gpus 8 --json

It changes nothing: a folder that it makes to try the disk is gone when it ends.

Exit codes:
  0  all is ok, or only warnings
  2  the recipe is wrong
  3  the machine is not able
  4  the data is bad")]
pub struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,

    /// Where the run would be kept [default: runs/<the recipe's name>]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    ok: usize,
    warn: usize,
    fail: usize,
    checks: Vec<Check>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let checks = checks(arguments);
    let code = code(&checks);
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let report = Report {
        ok: count(State::Ok),
        warn: count(State::Warn),
        fail: count(State::Fail),
        checks,
    };
    match arguments.json {
        true => output::print_json(&report)?,
        false => output::print(&in_words(&report))?,
    }
    Ok(code)
}

fn checks(arguments: &Arguments) -> Vec<Check> {
    let loaded = arguments.recipe.load();
    let recipe = loaded.as_ref().ok();
    let on_gpus = recipe.is_none_or(|recipe| recipe.device == Device::Cuda);
    let asked = match recipe {
        Some(recipe) => recipe.gpus.filter(|_| on_gpus),
        None => arguments.recipe.gpus,
    };
    let ranks = recipe.map_or(1, |recipe| {
        super::plan::ranks(&arguments.recipe, recipe) as u64
    });
    let mut checks = ranks::checks(asked, on_gpus);
    checks.extend(network::checks());
    checks.extend(machine::checks(recipe, ranks));
    let (of_recipe, bytes) = match &loaded {
        Ok(recipe) => look_at(recipe, ranks),
        Err(error) => (
            Check::fail("recipe", error.to_string(), "change what it names").about(About::Recipe),
            None,
        ),
    };
    let run_dir = arguments.run_dir.clone();
    let run_dir = run_dir
        .or(recipe.map(|recipe| Path::new("runs").join(&recipe.name)))
        .unwrap_or_else(|| PathBuf::from("runs"));
    checks.extend(disk::checks(["disk", "run directory"], &run_dir, bytes));
    if let Some(cache) = recipe.and_then(|recipe| recipe.data.cache.dir.as_ref()) {
        checks.extend(disk::checks(["cache's disk", "cache"], cache, None));
    }
    checks.push(of_recipe);
    if let Some(recipe) = recipe {
        checks.extend(data::checks(recipe));
    }
    checks
}

/// The recipe with all that follows from it; and the bytes of the checkpoints that stay.
fn look_at(recipe: &Recipe, ranks: u64) -> (Check, Option<u64>) {
    let pretrained = Pretrained::look(recipe);
    let compile = || -> anyhow::Result<(usize, u64)> {
        let files = plan::Files {
            weights: pretrained.hashes.clone(),
            inputs: None,
        };
        let plan = plan::compile_with(recipe, &files)?;
        batch::spreads(&plan, usize::try_from(ranks).unwrap_or(usize::MAX))?;
        pretrained.require()?;
        let each = plan.jobs.iter().filter_map(|job| plan::cost(&job.kind));
        let bytes: u64 = each.map(|cost| cost.checkpoint_bytes).sum();
        Ok((
            plan.jobs.len(),
            bytes.saturating_mul(plan.checkpoint.keep_last),
        ))
    };
    let (check, bytes) = match compile() {
        Ok((jobs, bytes)) => {
            let found = format!("`{}` is valid: {jobs} jobs on {ranks} ranks", recipe.name);
            (Check::ok("recipe", found), Some(bytes))
        }
        Err(error) => {
            let remedy = "change what it names; `spinectl plan` shows what a recipe comes to";
            (Check::fail("recipe", error.to_string(), remedy), None)
        }
    };
    (check.about(About::Recipe), bytes)
}

/// The machine first: on one that is not able, recipe and data do not matter yet.
fn code(checks: &[Check]) -> u8 {
    let failed = |about| {
        let is_it = |check: &Check| check.state == State::Fail && check.about == about;
        checks.iter().any(is_it)
    };
    match () {
        () if failed(About::Machine) => exit::MACHINE,
        () if failed(About::Recipe) => exit::WRONG_USE,
        () if failed(About::Data) => exit::BAD_DATA,
        () => exit::DONE,
    }
}

fn in_words(report: &Report) -> String {
    let mut table = table::new(&[
        Column::Text("check"),
        Column::Text("state"),
        Column::Text("found"),
    ]);
    for check in &report.checks {
        let first = check.found.lines().next().unwrap_or_default();
        table.add_row([check.name, check.state.as_str(), first]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    for check in &report.checks {
        if let Some(remedy) = check.remedy.as_ref().filter(|_| check.state != State::Ok) {
            let state = check.state.as_str();
            text.push_str(&format!(
                "\n{state}: {}: {}\n  -> {remedy}\n",
                check.name, check.found
            ));
        }
    }
    let failures = units::count(report.fail, "failure", "failures");
    let warnings = units::count(report.warn, "warning", "warnings");
    format!("{text}\n{} ok, {warnings}, {failures}", report.ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whose_failure_it_is() {
        let fail = |about| Check::fail("a", "b", "c").about(about);
        let warn = Check::warn("a", "b", "c");
        assert_eq!(code(&[Check::ok("a", "b"), warn.clone()]), 0);
        let data = fail(About::Data);
        assert_eq!(code(&[warn, data.clone()]), 4);
        let recipe = fail(About::Recipe);
        assert_eq!(code(&[data.clone(), recipe.clone()]), 2);
        assert_eq!(code(&[data, recipe, fail(About::Machine)]), 3);
    }
}
