//! `spinectl model`: single models, outside of any run, for whoever checks them against PyTorch.

mod arguments;
pub mod rank;
mod show;

use clap::Subcommand;
use plan::model_request::{ComputeDevice, ModelRequest};

use arguments::{List, Run, Step};

use crate::{exit, output};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the backbones
    #[command(name = "ls", after_help = "Example:\n  spinectl model ls")]
    List(List),
    /// Run a model once on tensors of yours and write what it gives
    #[command(after_help = arguments::RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Update a model's weights on tensors of yours and write losses and weights
    #[command(after_help = arguments::STEP_EXAMPLES)]
    Step(Box<Step>),
}

pub fn run(command: &Command) -> anyhow::Result<u8> {
    let (request, json, output) = match command {
        Command::List(list) => (ModelRequest::List, list.json, None),
        Command::Run(run) => (run.request(), run.json, Some(run.output())),
        Command::Step(step) => (step.request()?, step.json, Some(step.output())),
    };
    if let ModelRequest::Run { model, .. } | ModelRequest::Step { model, .. } = &request
        && let ComputeDevice::Cuda(number) = model.device
    {
        launcher::gpu::find().require(number + 1)?;
    }
    let report = match rank::ask(&request)? {
        Ok(report) => report,
        // The rank has said what was wrong.
        Err(code) => return Ok(code),
    };
    if json {
        output::print_json(&report)?;
    } else {
        output::print(&show::report(&report, output))?;
    }
    Ok(exit::DONE)
}
