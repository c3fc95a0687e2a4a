//! What ranks compute with: the GPUs and their driver, libtorch, Gloo, NCCL. A rank program is asked.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use launcher::gpu::Gpus;
use plan::probe::ProbeReport;

use super::check::{Check, State};
use crate::units;

const ON_CPU: &str = "without GPUs, add `--device cpu --ranks 2` to the launch";

/// `asked`: how many GPUs a recipe or a flag asks for by number. `on_gpus`: whether the run would use any.
pub fn checks(asked: Option<u64>, on_gpus: bool) -> Vec<Check> {
    let gpus = launcher::gpu::find();
    let mut checks = vec![of_driver(&gpus, asked, on_gpus)];
    match probe() {
        Ok(report) => checks.extend(of_probe(&report, &gpus, asked, on_gpus)),
        Err(error) => checks.push(Check::fail(
            "libtorch",
            format!("{error:#}"),
            "`make setup` finds or installs libtorch, `make build` builds both programs",
        )),
    }
    checks
}

fn probe() -> anyhow::Result<ProbeReport> {
    let program = launcher::rank_program()?;
    let answer = Command::new(&program)
        .arg("probe")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !answer.status.success() {
        let said = String::from_utf8_lossy(&answer.stderr);
        let last = said.lines().last().unwrap_or("it said nothing");
        bail!("{} ended with {}: {last}", program.display(), answer.status);
    }
    serde_json::from_slice(&answer.stdout).with_context(|| {
        format!(
            "{} gave an answer that is not understood: are both programs of one build?",
            program.display()
        )
    })
}

fn of_driver(gpus: &Gpus, asked: Option<u64>, on_gpus: bool) -> Check {
    let mut found = gpus.evidence.join("; ");
    if let Ok(text) = fs::read_to_string("/proc/driver/nvidia/version")
        && let Some(line) = text.lines().next()
    {
        let line = line.trim_start_matches("NVRM version:").trim();
        found.push_str(&format!("; driver: {line}"));
    }
    let needed = asked.unwrap_or(1);
    let enough = gpus.count as u64 >= needed;
    match (enough, on_gpus, asked) {
        (true, ..) | (_, false, _) => Check::ok("GPUs", found),
        (_, _, None) => Check::warn("GPUs", found, ON_CPU),
        (_, _, Some(asked)) => Check::fail(
            "GPUs",
            format!("{asked} asked for, {} there: {found}", gpus.count),
            match gpus.count {
                0 => ON_CPU.to_owned(),
                there => format!("`--gpus {there}`; {ON_CPU}"),
            },
        ),
    }
}

fn of_probe(report: &ProbeReport, gpus: &Gpus, asked: Option<u64>, on_gpus: bool) -> Vec<Check> {
    let version = report.libtorch_version.as_deref();
    let folder = report.libtorch_folder.as_ref();
    let mut checks = vec![Check::ok(
        "libtorch",
        format!(
            "{} in {}, {} threads",
            version.unwrap_or("of no known version"),
            folder.map_or_else(
                || "an unknown folder".to_owned(),
                |path| path.display().to_string()
            ),
            report.threads
        ),
    )];
    checks.push(vectors());
    checks.push(match &report.gloo {
        Ok(()) => Check::ok("Gloo", "a group on loopback came to be and took a tensor"),
        Err(error) => Check::fail(
            "Gloo",
            error.as_str(),
            "see the checks of the network: ranks meet over loopback",
        ),
    });
    // How bad it is that something of the GPUs does not work: with none here, not at all.
    let severity = match (on_gpus && gpus.count > 0, asked) {
        (true, _) | (false, Some(_)) => State::Fail,
        (false, None) if on_gpus => State::Warn,
        (false, None) => State::Ok,
    };
    let missing = |name, error: &str| Check {
        state: severity,
        ..Check::warn(
            name,
            error,
            "point LIBTORCH at a PyTorch 2.11 with CUDA and build again, or run with `--device cpu --ranks 2`",
        )
    };
    match &report.cuda {
        Err(error) => checks.push(missing("CUDA", error)),
        Ok(()) => {
            checks.push(match &report.devices {
                Ok(devices) if devices.is_empty() && gpus.count > 0 => {
                    missing("CUDA", "libtorch's GPU half loads, but sees no GPU")
                }
                Ok(devices) => {
                    let memory: Vec<String> = devices
                        .iter()
                        .map(|device| {
                            format!(
                                "{} of {} free",
                                units::bytes(device.free),
                                units::bytes(device.total)
                            )
                        })
                        .collect();
                    let devices = units::count(devices.len(), "GPU", "GPUs");
                    Check::ok(
                        "CUDA",
                        format!("loads and sees {devices}: [{}]", memory.join(", ")),
                    )
                }
                Err(error) => missing("CUDA", error),
            });
            checks.push(match &report.nccl {
                Ok(version) => Check::ok("NCCL", version.as_str()),
                Err(error) => missing("NCCL", error),
            });
        }
    }
    checks
}

/// The vector instructions that libtorch picks its kernels by.
fn vectors() -> Check {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = about
        .lines()
        .find_map(|line| line.strip_prefix("flags").or(line.strip_prefix("Features")))
        .unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|known| known == flag);
    let best = ["avx512f", "avx2", "sve", "asimd"]
        .into_iter()
        .find(|flag| has(flag));
    match best {
        Some(best) => Check::ok("CPU", format!("has {best}")),
        None => Check::warn(
            "CPU",
            "has no vector instructions that libtorch knows",
            "training on it is slow: take another machine, or GPUs",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(count: usize) -> Gpus {
        Gpus {
            count,
            evidence: vec!["looked".into()],
            ..Gpus::default()
        }
    }

    #[test]
    fn a_machine_without_gpus_fails_only_where_they_are_asked_for() {
        assert_eq!(of_driver(&gpus(0), None, true).state, State::Warn);
        assert_eq!(of_driver(&gpus(0), None, false).state, State::Ok);
        assert_eq!(of_driver(&gpus(2), Some(2), true).state, State::Ok);
        let check = of_driver(&gpus(2), Some(8), true);
        assert_eq!(check.state, State::Fail);
        assert!(check.remedy.unwrap().contains("--gpus 2"));
        let warned = of_driver(&gpus(0), None, true).remedy.unwrap();
        assert!(warned.contains("--device cpu"));
    }

    #[test]
    fn what_is_missing_for_gpus_weighs_as_much_as_they_do() {
        let report = ProbeReport {
            libtorch_version: Some("2.11.0".into()),
            libtorch_folder: None,
            threads: 2,
            gloo: Ok(()),
            cuda: Err("libtorch_cuda.so is not there".into()),
            devices: Err(String::new()),
            nccl: Err(String::new()),
        };
        let of = |gpus, asked, on_gpus| {
            let checks = of_probe(&report, &gpus, asked, on_gpus);
            let cuda = checks.into_iter().find(|check| check.name == "CUDA");
            cuda.unwrap().state
        };
        assert_eq!(of(gpus(0), None, false), State::Ok);
        assert_eq!(of(gpus(0), None, true), State::Warn);
        assert_eq!(of(gpus(1), None, true), State::Fail);
        assert_eq!(of(gpus(0), Some(1), true), State::Fail);
        assert_eq!(of(gpus(4), None, false), State::Ok);
    }
}
