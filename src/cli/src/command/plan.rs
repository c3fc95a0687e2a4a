//! `spinectl plan`: the jobs of a recipe and what they cost, without running any; and what a run would keep of them.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use recipe::Recipe;

use crate::forecast::{Forecast, Grounds};
use crate::measured::MeasuredRun;
use crate::plan_diff::PlanDiff;
use crate::plan_view::PlanView;
use crate::pretrained::Pretrained;
use crate::recipe_arguments::RecipeArguments;
use crate::{batch, exit, inputs, leakage, output};

/// Show the jobs of a recipe: their order, GPU-hours, disk and memory, and what more GPUs would gain
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl plan --gpus 8
  spinectl plan configs/demo.yaml --ranks 2 --format mermaid
  spinectl plan --gpus 8 --run runs/rsna2022
  spinectl plan --diff runs/rsna2022 --set stage2.training.learning_rate=3e-4

No GPU is needed. GPU-hours come from the step times of a run where one is given (--run), else from FLOPs at the
rate of --tflops; the formulas of disk and memory stand in docs/planning.md. They are estimates.
--diff says of each job what a launch into that run directory would make of it: kept, open (not done yet), rerun,
new or gone, and why. Without RECIPE it takes the run's own recipe.")]
pub struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,

    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Take step times from this run, and mark what is done there
    #[arg(long, value_name = "RUN_DIR", alias = "measured")]
    run: Option<PathBuf>,

    /// Show what a launch would keep of this run and what it would do again, and why
    #[arg(long, value_name = "RUN_DIR", conflicts_with_all = ["run", "tflops", "gpu_memory"])]
    diff: Option<PathBuf>,

    /// What a GPU (with --device cpu, a rank) sustains, in 10^12 floating-point operations a second [default: 54; 0.05 on CPUs]
    #[arg(long, value_name = "N", value_parser = positive)]
    tflops: Option<f64>,

    /// Refuse jobs that take more than so many GB (10^9 bytes) of a GPU
    #[arg(long, value_name = "GB", value_parser = positive)]
    gpu_memory: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Mermaid,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let format = match arguments.json {
        true => Format::Json,
        false => arguments.format,
    };
    if let Some(run_dir) = &arguments.diff {
        return diff(arguments, run_dir, format);
    }
    let run = arguments
        .run
        .as_deref()
        .map(MeasuredRun::read)
        .transpose()?;
    let recipe = arguments.recipe.load()?;
    let files = inputs::files(&recipe, &Pretrained::look(&recipe))?;
    let plan = plan::compile_with(&recipe, &files)?;
    leakage::of_plan(&plan)?;
    let ranks = ranks(&arguments.recipe, &recipe);
    let spreads = batch::spreads(&plan, ranks)?;
    let grounds = Grounds {
        device: recipe.device,
        tflops: arguments.tflops,
        run: run.as_ref(),
    };
    let forecast = Forecast::of(&plan, ranks, grounds)?;
    if let Some(gb) = arguments.gpu_memory {
        forecast.fit(&plan, ranks, (gb * 1e9) as u64)?;
    }
    let view = PlanView::new(&plan, ranks, &spreads, &forecast);
    match format {
        Format::Table => output::print(&view.table())?,
        Format::Json => output::print_json(&view)?,
        Format::Mermaid => output::print(&view.mermaid())?,
    }
    Ok(exit::DONE)
}

/// The recipe against a run.
fn diff(arguments: &Arguments, run_dir: &Path, format: Format) -> anyhow::Result<u8> {
    if format == Format::Mermaid {
        return Err(exit::wrong_use(
            "--diff is shown as a table or as JSON: leave --format mermaid out",
        ));
    }
    let run = MeasuredRun::read(run_dir)?;
    let mut recipe = arguments.recipe.clone();
    recipe
        .recipe
        .get_or_insert_with(|| run_dir.join("recipe.yaml"));
    let recipe = recipe.load()?;
    let files = inputs::files(&recipe, &Pretrained::look(&recipe))?;
    let plan = plan::compile_with(&recipe, &files)?;
    let diff = PlanDiff::new(run_dir, &run, &plan);
    match format {
        Format::Json => output::print_json(&diff)?,
        Format::Table | Format::Mermaid => output::print(&diff.table())?,
    }
    Ok(exit::DONE)
}

/// The ranks to plan for, on whatever machine this is: what was asked for, else what there is.
pub fn ranks(arguments: &RecipeArguments, recipe: &Recipe) -> usize {
    let asked = match (arguments.ranks, recipe.device) {
        (Some(ranks), _) => ranks,
        (None, recipe::Device::Cpu) => recipe.ranks,
        (None, recipe::Device::Cuda) => match recipe.gpus {
            Some(gpus) => gpus,
            None => launcher::gpu::find().count.max(1) as u64,
        },
    };
    usize::try_from(asked).unwrap_or(usize::MAX)
}
