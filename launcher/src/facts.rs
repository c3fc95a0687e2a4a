//! What Linux tells of a process from outside: the state of its main thread, and where in the kernel it waits.

use std::fs;

/// A look at a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// `R` runs, `S` sleeps, `D` waits in the kernel and cannot be disturbed, `T` and `t` are stopped, `Z` is dead.
    pub state: Option<char>,
    /// The kernel's function in which it waits.
    pub waits_in: Option<String>,
    /// The system call that it is in, by number.
    pub call: Option<String>,
    /// The kernel's frames, where this user may see them.
    pub kernel_stack: Vec<String>,
    /// Processor time of its main thread so far, in clock ticks.
    pub ticks: Option<u64>,
}

impl Facts {
    /// Looks at the process; what cannot be read stays unknown.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let word = |name| {
            let text = read(name)?;
            let word = text.split_whitespace().next()?.to_owned();
            (word != "0" && word != "running").then_some(word)
        };
        let (state, ticks) = read(&format!("task/{pid}/stat"))
            .and_then(|line| state_and_ticks(&line))
            .unzip();
        Facts {
            state,
            ticks,
            waits_in: word("wchan"),
            call: word("syscall"),
            kernel_stack: read("stack").map_or_else(Vec::new, |text| {
                text.lines().map(|line| line.trim().to_owned()).collect()
            }),
        }
    }
}

/// Fields 3, 14 and 15 of proc(5)'s stat; the second, a name, may hold anything.
fn state_and_ticks(line: &str) -> Option<(char, u64)> {
    let (_, after) = line.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let state = fields.first()?.chars().next()?;
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((state, number(11)? + number(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_as_it_is() {
        let own = Facts::of(std::process::id());
        assert!(matches!(own.state, Some('R' | 'S')), "{own:?}");
        assert!(own.ticks.is_some());
        let gone = Facts::of(u32::MAX);
        assert_eq!(gone, Facts::default());
    }

    #[test]
    fn a_name_with_brackets_does_not_hide_the_state() {
        let line = "7 (a) R (b) D 1 1 1 0 -1 4194304 1 2 3 4 50 6 7 8 20 0 1";
        assert_eq!(state_and_ticks(line), Some(('D', 56)));
        assert_eq!(state_and_ticks("7 (torn"), None);
    }
}
