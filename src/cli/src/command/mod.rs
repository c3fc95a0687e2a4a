//! The commands, one a file.

pub mod audit;
mod cancel;
mod checkpoint;
mod completions;
mod data;
mod doctor;
mod evaluate;
mod launch;
mod logs;
mod model;
mod pause;
mod plan;
mod predict;
mod resume;
mod status;
mod stop;
mod tensorboard;

use std::future::Future;

use anyhow::Context;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    Launch(Box<launch::Arguments>),
    Plan(plan::Arguments),
    Status(status::Arguments),
    Audit(audit::Arguments),
    Logs(logs::Arguments),
    Stop(stop::Arguments),
    Tensorboard(tensorboard::Arguments),
    Pause(pause::Arguments),
    Resume(resume::Arguments),
    Cancel(cancel::Arguments),
    Doctor(doctor::Arguments),
    /// List, verify and export checkpoints
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Make, check and split data sets
    #[command(subcommand)]
    Data(data::Command),
    /// Run and update single models on tensors of yours, to check them against PyTorch
    #[command(subcommand)]
    Model(model::Command),
    Predict(predict::Arguments),
    Evaluate(evaluate::Arguments),
    Completions(completions::Arguments),
}

impl Command {
    /// Runs the command; the exit code where it came to its end.
    pub fn run(&self) -> anyhow::Result<u8> {
        match self {
            Command::Launch(arguments) => launch::run(arguments),
            Command::Plan(arguments) => plan::run(arguments),
            Command::Status(arguments) => status::run(arguments),
            Command::Audit(arguments) => audit::run(arguments),
            Command::Logs(arguments) => logs::run(arguments),
            Command::Stop(arguments) => stop::run(arguments),
            Command::Tensorboard(arguments) => tensorboard::run(arguments),
            Command::Pause(arguments) => pause::run(arguments),
            Command::Resume(arguments) => resume::run(arguments),
            Command::Cancel(arguments) => cancel::run(arguments),
            Command::Doctor(arguments) => doctor::run(arguments),
            Command::Checkpoint(command) => checkpoint::run(command),
            Command::Data(command) => data::run(command),
            Command::Model(command) => model::run(command),
            Command::Predict(arguments) => predict::run(arguments),
            Command::Evaluate(arguments) => evaluate::run(arguments),
            Command::Completions(arguments) => completions::run(arguments),
        }
    }
}

/// Drives a future to its end on this thread.
pub fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    Ok(runtime.block_on(future))
}
