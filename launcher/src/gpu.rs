//! Which NVIDIA GPUs a run may use, told from what the driver shows, without libtorch.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::LaunchError;

/// The driver's management library, as the dynamic linker finds it.
const NVML: &str = "libnvidia-ml.so.1";

/// How CUDA counts GPUs, and the order that other programs and the driver's files have, too.
const ORDER: &str = "CUDA_DEVICE_ORDER";
const BY_ADDRESS: &str = "PCI_BUS_ID";

/// The GPUs that ranks will see, and how that was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// How many a run may use.
    pub count: usize,
    /// Models of all that the driver names, by PCI address.
    pub models: Vec<String>,
    /// What was found and what was not, a phrase each.
    pub evidence: Vec<String>,
    /// The library that tells how busy they are; it need not be there.
    #[serde(skip)]
    pub library: PathBuf,
}

/// Looks for GPUs: the driver's list, the device files, CUDA_VISIBLE_DEVICES.
pub fn find() -> Gpus {
    let visible = env::var_os("CUDA_VISIBLE_DEVICES");
    let visible = visible.as_ref().map(|value| value.to_string_lossy());
    find_in(Path::new("/"), visible.as_deref())
}

/// What CUDA_VISIBLE_DEVICES calls these of the GPUs that are visible now, which are told by their place among them.
pub(crate) fn names(places: &[usize]) -> Vec<String> {
    let now = env::var("CUDA_VISIBLE_DEVICES").ok();
    of_visible(places, now.as_deref())
}

fn of_visible(places: &[usize], now: Option<&str>) -> Vec<String> {
    let named: Option<Vec<&str>> = now.map(|list| list.split(',').map(str::trim).collect());
    let names = places.iter().filter_map(|place| match &named {
        Some(named) => named.get(*place).map(|name| (*name).to_owned()),
        None => Some(place.to_string()),
    });
    names.collect()
}

/// The CUDA_DEVICE_ORDER that ranks are given where the user has none: a rank's number tells then which GPU it is, also between
/// GPUs of different speed.
pub(crate) fn order() -> Option<(&'static str, String)> {
    let own = env::var_os(ORDER).is_some();
    (!own).then(|| (ORDER, BY_ADDRESS.to_owned()))
}

/// Whether ranks count GPUs in the order of their PCI addresses.
pub(crate) fn is_by_address() -> bool {
    env::var_os(ORDER).is_none_or(|order| order == BY_ADDRESS)
}

impl Gpus {
    /// Whether there are at least `n`.
    pub fn require(&self, n: usize) -> Result<(), LaunchError> {
        if self.count >= n {
            return Ok(());
        }
        let instead = match self.count {
            0 => String::new(),
            found => format!("`spinectl launch ... --gpus {found}` or "),
        };
        Err(LaunchError::Gpus(format!(
            "{n} {} asked for, and this machine offers {}: {}. \
             Type {instead}`spinectl launch ... --device cpu --ranks 2` instead",
            if n == 1 { "GPU is" } else { "GPUs are" },
            self.count,
            self.evidence.join("; "),
        )))
    }
}

fn find_in(root: &Path, visible: Option<&str>) -> Gpus {
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    };
    let addresses = names("proc/driver/nvidia/gpus");
    let models: Vec<String> = addresses
        .iter()
        .filter_map(|address| {
            let about = root
                .join("proc/driver/nvidia/gpus")
                .join(address)
                .join("information");
            let about = fs::read_to_string(about).ok()?;
            let model = about.lines().find_map(|line| line.strip_prefix("Model:"))?;
            Some(model.trim().to_owned())
        })
        .collect();
    let files = names("dev")
        .iter()
        .filter(|name| {
            let number = name.strip_prefix("nvidia").unwrap_or_default();
            number.parse::<u32>().is_ok()
        })
        .count();

    let mut evidence = vec![
        match addresses.len() {
            0 => "no GPU in /proc/driver/nvidia/gpus".to_owned(),
            n if models.is_empty() => format!("{n} in /proc/driver/nvidia/gpus"),
            n => format!("{n} in /proc/driver/nvidia/gpus ({})", models.join(", ")),
        },
        match files {
            0 => "no /dev/nvidia<N>".to_owned(),
            n => format!("{n} of /dev/nvidia<N>"),
        },
    ];
    // In a container the driver lists the host's GPUs, and the device files are those lent to it.
    let present = if files > 0 { files } else { addresses.len() };
    let count = match visible {
        None => present,
        Some(list) => {
            let count = present.min(visible_among(list, present));
            evidence.push(format!("CUDA_VISIBLE_DEVICES=\"{list}\" leaves {count}"));
            count
        }
    };
    Gpus {
        count,
        models,
        evidence,
        library: NVML.into(),
    }
}

/// How many devices CUDA takes from the list: up to the first entry that is none.
fn visible_among(list: &str, present: usize) -> usize {
    let is_device = |entry: &&str| {
        let by_name = entry.starts_with("GPU-") || entry.starts_with("MIG-");
        by_name || entry.parse::<usize>().is_ok_and(|index| index < present)
    };
    list.split(',').map(str::trim).take_while(is_device).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_the_visible_list_keeps_its_names() {
        assert_eq!(of_visible(&[0, 2], None), ["0", "2"]);
        assert_eq!(of_visible(&[1], Some("GPU-a, GPU-b")), ["GPU-b"]);
    }

    fn machine(listed: usize, files: usize) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for index in 0..listed {
            let folder = root
                .path()
                .join(format!("proc/driver/nvidia/gpus/0000:0{index}:00.0"));
            fs::create_dir_all(&folder).unwrap();
            let text = format!("Model: \t\t NVIDIA H100\nDevice Minor: \t {index}\n");
            fs::write(folder.join("information"), text).unwrap();
        }
        fs::create_dir_all(root.path().join("dev")).unwrap();
        for index in 0..files {
            fs::write(root.path().join(format!("dev/nvidia{index}")), "").unwrap();
        }
        for other in ["nvidiactl", "nvidia-uvm"] {
            fs::write(root.path().join("dev").join(other), "").unwrap();
        }
        root
    }

    #[test]
    fn device_files_count_and_the_driver_names_them() {
        let root = machine(8, 2);
        let gpus = find_in(root.path(), None);
        assert_eq!((gpus.count, gpus.models.len()), (2, 8));
        assert_eq!(find_in(machine(4, 0).path(), None).count, 4);
        assert_eq!(find_in(machine(0, 0).path(), None).count, 0);
    }

    #[test]
    fn the_visible_list_is_read_as_cuda_reads_it() {
        let root = machine(4, 4);
        for (list, count) in [
            ("", 0),
            ("-1", 0),
            ("0", 1),
            ("2, 3", 2),
            ("0,9,1", 1),
            ("GPU-8f3a,MIG-11", 2),
        ] {
            assert_eq!(find_in(root.path(), Some(list)).count, count, "{list:?}");
        }
    }

    #[test]
    fn too_few_are_refused_with_what_was_found_and_what_to_type() {
        let some = find_in(machine(2, 2).path(), Some("1"));
        let error = some.require(8).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        for part in ["8 GPUs", "H100", "CUDA_VISIBLE_DEVICES=\"1\"", "--gpus 1`"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let none = find_in(machine(0, 0).path(), None).require(1).unwrap_err();
        assert!(!none.to_string().contains("--gpus"), "{none}");
        assert!(
            none.to_string().contains("--device cpu --ranks 2"),
            "{none}"
        );
    }
}
