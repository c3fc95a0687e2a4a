//! `spinectl launch`: a recipe from its arguments to the end of its run.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use cluster::slurm::{self, SlurmOptions};
use launcher::gpu::Gpus;
use launcher::{LaunchOptions, Resume};
use plan::Plan;
use recipe::{Device, Recipe};
use telemetry::Observer;
use telemetry::otel::Settings;
use telemetry::tensorboard::Board;

use crate::exit::{self, fault, wrong_use};
use crate::forecast::{Forecast, Grounds};
use crate::plan_view::PlanView;
use crate::pretrained::Pretrained;
use crate::progress::{Follower, Show};
use crate::recipe_arguments::RecipeArguments;
use crate::{batch, inputs, leakage, output, report, run_command, summary, verify_resume};

/// Run a recipe on this machine, or go on with a run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl launch --gpus 8
  spinectl launch configs/demo.yaml --device cpu --ranks 2 --run-dir runs/demo
  spinectl launch --gpus 4 --cluster slurm --time 1-00:00 --dry-run | sbatch
  spinectl launch configs/demo.yaml --device cpu --ranks 2 --verify-resume 6

The same command goes on with what was begun: jobs that are done are not run
again, others go on from their newest checkpoint. Ctrl-C stops after the step
with a checkpoint; a second one stops at once.

--verify-resume proves that a resume is exact, on your machine and recipe. It runs the recipe once undisturbed
and once disturbed, in two folders below --run-dir: at KILLS random moments, spread over the run, it kills a
rank, kills the launcher and launches again, or stops it and launches again, in turn. Then it compares weights,
optimizer state, tables and metrics, and the numbers of every update, to the bit, and audits both runs. On GPUs
sums may be taken in another order each time: there two undisturbed runs can differ as well.
Exit codes of --verify-resume: 0 the runs are the same; 1 they differ, or no kill came in time, and it says where;
130, 143 interrupted; a run that fails ends it with that run's own.")]
pub struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,

    /// Where the run is kept [default: runs/<the recipe's name>; with --verify-resume runs/<name>-verify-resume]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,

    /// auto: go on where there is a run; never: refuse that; or the checkpoint to go on from
    #[arg(long, value_name = "auto|never|CHECKPOINT", default_value = "auto")]
    resume: ResumeArgument,

    /// Show what would be run, and run nothing
    #[arg(long)]
    dry_run: bool,

    /// Run so many jobs at once and no more [default: as many as GPUs, host memory and disk allow]
    #[arg(long, value_name = "N", value_parser = jobs)]
    jobs: Option<usize>,

    #[arg(long, value_enum, default_value_t = Cluster::Local)]
    cluster: Cluster,

    /// Nodes to use
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,

    /// Time limit for Slurm, such as 12:00:00 or 1-06:00
    #[arg(long)]
    time: Option<String>,

    /// Partition for Slurm
    #[arg(long)]
    partition: Option<String>,

    /// Run twice, kill one of the two so often, and compare what both come to [KILLS: 3 where it is left out]
    #[arg(
        long,
        value_name = "KILLS",
        num_args = 0..=1,
        default_missing_value = "3",
        value_parser = kills,
        conflicts_with_all = ["resume", "dry_run", "jobs", "nodes", "time", "partition"]
    )]
    verify_resume: Option<usize>,

    /// Draw the moments of --verify-resume from this number again [default: another one each time, which is printed]
    #[arg(long, value_name = "N", requires = "verify_resume")]
    verify_seed: Option<u64>,

    /// Let Prometheus read the run's metrics at this port of 127.0.0.1, 0 for a free one [default: the recipe's telemetry.metrics_port]
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,

    /// Show only warnings, failures, where Prometheus can read, and the end
    #[arg(long, short)]
    quiet: bool,

    /// Print every event as a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cluster {
    /// This machine
    Local,
    /// A batch script for Slurm
    Slurm,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ResumeArgument(Resume);

impl FromStr for ResumeArgument {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(ResumeArgument(match text {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::From(PathBuf::from(path)),
        }))
    }
}

fn jobs(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|jobs| *jobs > 0);
    number.ok_or_else(|| "expected a number of jobs, 1 or more".to_owned())
}

fn kills(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(kills @ 1..=1000) => Ok(kills),
        _ => Err("expected how often to kill, 1 to 1000; write the recipe before it".to_owned()),
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut recipe = arguments.recipe.load()?;
    let port = arguments.metrics_port.map(u64::from);
    recipe.telemetry.metrics_port = port.or(recipe.telemetry.metrics_port);
    let pretrained = Pretrained::look(&recipe);
    let plan = plan::compile_with(&recipe, &inputs::files(&recipe, &pretrained)?)?;
    let run_dir = run_dir(arguments, &recipe)?;
    match arguments.cluster {
        Cluster::Slurm => on_slurm(arguments, &recipe, &plan, &run_dir),
        Cluster::Local => on_this_machine(arguments, &recipe, plan, run_dir, &pretrained),
    }
}

/// A recipe's name becomes a folder only where it can be nothing else.
fn run_dir(arguments: &Arguments, recipe: &Recipe) -> anyhow::Result<PathBuf> {
    if let Some(run_dir) = &arguments.run_dir {
        return Ok(run_dir.clone());
    }
    let name = &recipe.name;
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(safe) {
        return Err(wrong_use(format!(
            "the recipe's name `{name}` is no folder's name: write --run-dir DIR"
        )));
    }
    Ok(Path::new("runs").join(match arguments.verify_resume {
        None => name.clone(),
        Some(_) => format!("{name}-verify-resume"),
    }))
}

fn on_this_machine(
    arguments: &Arguments,
    recipe: &Recipe,
    plan: Plan,
    run_dir: PathBuf,
    pretrained: &Pretrained,
) -> anyhow::Result<u8> {
    if arguments.nodes != 1 {
        return Err(wrong_use(format!(
            "{} nodes are more than this machine: leave --nodes out",
            arguments.nodes
        )));
    }
    if arguments.time.is_some() || arguments.partition.is_some() {
        return Err(wrong_use(
            "--time and --partition are Slurm's: add --cluster slurm, or leave them out",
        ));
    }
    if recipe.device == Device::Cuda && arguments.recipe.ranks.is_some() {
        return Err(wrong_use(
            "--ranks is for the CPU: write --device cpu --ranks N, or --gpus N for one rank on each of N GPUs",
        ));
    }
    if arguments.dry_run {
        return dry_run(arguments, recipe, &plan, &run_dir);
    }
    let gpus = launcher::gpu::find();
    let ranks = ranks_here(recipe, &gpus)?;
    batch::spreads(&plan, ranks)?;
    if !recipe.data.root.is_dir() {
        return Err(fault(
            exit::BAD_DATA,
            format!(
                "data.root is {}, and there is no such folder: write `--set data.root=DIR` with a folder in Kaggle's \
                 layout, or make one to try with `spinectl data synth`",
                recipe.data.root.display()
            ),
        ));
    }
    pretrained.require()?;
    inputs::may_go_on(&plan, &run_dir)?;
    leakage::before_launch(&plan, &run_dir)?;
    if let Some(kills) = arguments.verify_resume {
        return verify_resume::run(&verify_resume::Request {
            recipe,
            folder: &run_dir,
            kills,
            seed: arguments.verify_seed,
            talk: !arguments.quiet && !arguments.json,
            json: arguments.json,
        });
    }
    let options = LaunchOptions {
        plan,
        recipe_yaml: recipe::to_yaml(recipe)?,
        run_dir,
        device: recipe.device,
        gpus,
        ranks,
        jobs: arguments.jobs,
        resume: arguments.resume.0.clone(),
        rank_program: launcher::rank_program()?,
    };
    launch(arguments, recipe, options)
}

/// The ranks that a machine with these GPUs can run.
fn ranks_here(recipe: &Recipe, gpus: &Gpus) -> anyhow::Result<usize> {
    Ok(match recipe.device {
        Device::Cpu => recipe.ranks as usize,
        Device::Cuda => {
            let asked = match recipe.gpus {
                Some(gpus) => gpus as usize,
                None => gpus.count.max(1),
            };
            let least = recipe.elastic.map_or(asked, |elastic| elastic.min as usize);
            gpus.require(asked.min(least))?;
            let found = gpus.count;
            if found < asked {
                output::say(&format!(
                    "{asked} GPUs are asked for and {found} are there: the recipe is elastic, so the run takes those"
                ));
            }
            asked.min(found)
        }
    })
}

fn dry_run(
    arguments: &Arguments,
    recipe: &Recipe,
    plan: &Plan,
    run_dir: &Path,
) -> anyhow::Result<u8> {
    let ranks = super::plan::ranks(&arguments.recipe, recipe);
    let spreads = batch::spreads(plan, ranks)?;
    leakage::of_plan(plan)?;
    let grounds = Grounds {
        device: recipe.device,
        tflops: None,
        run: None,
    };
    let forecast = Forecast::of(plan, ranks, grounds)?;
    let view = PlanView::new(plan, ranks, &spreads, &forecast);
    if arguments.json {
        output::print_json(&view)?;
    } else {
        output::print(&format!(
            "{}run directory {}; nothing was started",
            view.table(),
            run_dir.display()
        ))?;
    }
    Ok(exit::DONE)
}

fn launch(arguments: &Arguments, recipe: &Recipe, options: LaunchOptions) -> anyhow::Result<u8> {
    let show = match (arguments.json, arguments.quiet) {
        (true, _) => Show::Json,
        (_, true) => Show::Quiet,
        _ => Show::Progress,
    };
    let run_dir = options.run_dir.clone();
    let (settings, complaints) = Settings::resolve(recipe, &|name| std::env::var(name).ok());
    for complaint in complaints {
        output::say(&format!("warning: {complaint}"));
    }
    let observer = Observer::start(settings);
    let (events, follower) = Follower::start(show, Some(Board::new(&run_dir)), observer)?;
    // Ranks die with the thread that starts them: this one, which lives as long as the program.
    let launched = super::block_on(launcher::launch(options, events));
    let seen = follower.end();
    let outcome = launched??;

    // A run directory that is gone is not begun anew; and a page that cannot be written changes no run's outcome.
    if !matches!(outcome, launcher::Outcome::Lost { .. })
        && let Err(error) = summary::write(&run_dir, &outcome, &seen)
    {
        output::say(&format!("warning: there is no summary.md: {error}"));
    }
    let text = report::of_launch(&run_dir, &outcome, &seen)?;
    match (&outcome, arguments.json) {
        (launcher::Outcome::Done, false) => output::print(&text)?,
        (launcher::Outcome::Done, true) => {}
        _ => output::say(&text),
    }
    Ok(exit::of(outcome.exit_code()))
}

fn on_slurm(
    arguments: &Arguments,
    recipe: &Recipe,
    plan: &Plan,
    run_dir: &Path,
) -> anyhow::Result<u8> {
    if arguments.verify_resume.is_some() {
        return Err(wrong_use(
            "--verify-resume kills what it runs itself, on this machine: leave --cluster slurm out",
        ));
    }
    if arguments.resume.0 != Resume::Auto {
        return Err(wrong_use(
            "a job that is requeued must go on by itself: leave --resume out with --cluster slurm",
        ));
    }
    let gpus = match (recipe.device, recipe.gpus) {
        (Device::Cpu, _) => 0,
        (Device::Cuda, Some(gpus)) => gpus as usize,
        (Device::Cuda, None) => {
            return Err(wrong_use(
                "Slurm must be asked for a number of GPUs: write --gpus N",
            ));
        }
    };
    let ranks = match gpus {
        0 => recipe.ranks as usize,
        gpus => gpus,
    };
    batch::spreads(plan, ranks)?;
    let mut command = vec![run_command::program(), "launch".into()];
    command.extend(["--run-dir".into(), run_dir.display().to_string()]);
    if let Some(port) = arguments.metrics_port {
        command.extend(["--metrics-port".into(), port.to_string()]);
    }
    if let Some(jobs) = arguments.jobs {
        command.extend(["--jobs".into(), jobs.to_string()]);
    }
    command.extend(arguments.recipe.words());
    let script = slurm::render(
        plan,
        &SlurmOptions {
            job_name: job_name(&recipe.name),
            nodes: arguments.nodes,
            gpus,
            time: arguments.time.clone(),
            partition: arguments.partition.clone(),
            command,
        },
    )?;
    if !arguments.dry_run {
        return Err(wrong_use(
            "submitting to Slurm is not there yet: add --dry-run, and hand the script that it prints to `sbatch`",
        ));
    }
    output::print(&script)?;
    Ok(exit::DONE)
}

/// The recipe's name with what Slurm does not take replaced.
fn job_name(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
    let name: String = name
        .chars()
        .map(|c| if safe(c) { c } else { '_' })
        .collect();
    format!("spinectl-{name}")
}
