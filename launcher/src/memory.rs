//! How many processes the kernel has killed because the memory of our control group was used up.

use std::fs;
use std::path::PathBuf;

/// The counter of the group in which ranks run: the launcher's own.
#[derive(Clone, Debug)]
pub(crate) struct OomKills {
    file: Option<PathBuf>,
    seen: u64,
}

impl OomKills {
    /// Counts from now on.
    pub fn watch() -> Self {
        let file = fs::read_to_string("/proc/self/cgroup")
            .ok()
            .and_then(|groups| counters(&groups).into_iter().find(|file| file.is_file()));
        let mut kills = OomKills { file, seen: 0 };
        kills.seen = kills.read();
        kills
    }

    /// Whether there was one since the last look.
    pub fn happened(&mut self) -> bool {
        let now = self.read();
        now > std::mem::replace(&mut self.seen, now)
    }

    fn read(&self) -> u64 {
        let text = self
            .file
            .as_ref()
            .and_then(|file| fs::read_to_string(file).ok());
        text.and_then(|text| count(&text)).unwrap_or(0)
    }
}

/// Where the counter may be: of control groups of version 2 and 1; in a container its own group is often the root.
fn counters(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.events"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.oom_control")
            }
            _ => continue,
        };
        files.push(PathBuf::from(format!("{root}{path}/{name}")));
        files.push(PathBuf::from(format!("{root}/{name}")));
    }
    files
}

/// The line `oom_kill N`, which both versions have.
fn count(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(
            count("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
            Some(2)
        );
        assert_eq!(
            count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
            Some(5)
        );
        assert_eq!(count("oom_kill_disable 0\n"), None);
        let files = counters("4:memory:/job/7\n3:cpu,cpuacct:/\n0::/user.slice\n");
        assert_eq!(
            files[0],
            PathBuf::from("/sys/fs/cgroup/memory/job/7/memory.oom_control")
        );
        assert_eq!(
            files[2],
            PathBuf::from("/sys/fs/cgroup/user.slice/memory.events")
        );
    }

    #[test]
    fn only_a_kill_since_the_last_look_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let say = |n: u64| fs::write(file.path(), format!("oom_kill {n}\n")).unwrap();
        say(3);
        let mut kills = OomKills {
            file: Some(file.path().to_owned()),
            seen: 3,
        };
        assert!(!kills.happened());
        say(4);
        assert!(kills.happened() && !kills.happened());
    }
}
