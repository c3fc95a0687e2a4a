//! `spinectl plan`: the jobs of a recipe, without running any.

use clap::{Args, ValueEnum};
use recipe::Recipe;

use crate::plan_view::PlanView;
use crate::pretrained::Pretrained;
use crate::recipe_arguments::RecipeArguments;
use crate::{batch, exit, leakage, output};

/// Show the jobs of a recipe, their order, how batches are split over ranks, and the disk that checkpoints take
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl plan --gpus 8
  spinectl plan configs/demo.yaml --ranks 2 --format mermaid")]
pub struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,

    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Mermaid,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let recipe = arguments.recipe.load()?;
    let plan = plan::compile_with(&recipe, &Pretrained::look(&recipe).hashes)?;
    leakage::of_plan(&plan)?;
    let ranks = ranks(&arguments.recipe, &recipe);
    let spreads = batch::spreads(&plan, ranks)?;
    let view = PlanView::new(&plan, ranks, &spreads);
    let format = match arguments.json {
        true => Format::Json,
        false => arguments.format,
    };
    match format {
        Format::Table => output::print(&view.table())?,
        Format::Json => output::print_json(&view)?,
        Format::Mermaid => output::print(&view.mermaid())?,
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
