//! What a verification found: for the terminal, and as JSON.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use launcher::Compared;
use serde::Serialize;

use super::deal::Blow;
use crate::command::audit::{self, Row};
use crate::table::{self, Column};
use crate::units;

/// Differences of one kind that are printed; the rest are counted.
const SHOWN: usize = 12;

/// Both runs, and what was found in them.
#[derive(Debug, Serialize)]
pub struct Found {
    pub folder: PathBuf,
    pub seed: u64,
    pub undisturbed_seconds: f64,
    pub disturbed_seconds: f64,
    pub blows: Vec<Blow>,
    pub compared: Vec<Compared>,
    pub audits: Vec<Audited>,
}

/// What follows from it.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The runs are the same, and at least one blow was dealt: two undisturbed runs prove nothing of a resume.
    proved: bool,
    /// The runs are the same in everything, and their audits are clean.
    identical: bool,
    /// Blows that came in time.
    dealt: usize,
    #[serde(flatten)]
    found: Found,
}

/// What the ledgers of one of the two runs prove.
#[derive(Debug, Serialize)]
pub struct Audited {
    run: String,
    /// Updates that are proved, of those that the plan asks for.
    proved: u64,
    total: u64,
    /// Faults, and jobs that are not proved to their end.
    faults: Vec<String>,
}

pub fn audits(runs: &[PathBuf]) -> anyhow::Result<Vec<Audited>> {
    runs.iter()
        .map(|run| {
            let plan = plan::read(&run.join("plan.json"))
                .with_context(|| format!("cannot read the plan of {}", run.display()))?;
            let rows = audit::of_run(run, &plan, None)?;
            Ok(Audited::new(run, &rows))
        })
        .collect()
}

impl Audited {
    fn new(run: &Path, rows: &[Row]) -> Self {
        let mut audited = Audited {
            run: run.file_name().unwrap_or_default().display().to_string(),
            proved: 0,
            total: 0,
            faults: Vec::new(),
        };
        for row in rows {
            let faults = row.faults();
            let (proved, total) = match &row.audit {
                Some(audit) => (audit.proved, audit.total),
                None => (0, 0),
            };
            audited.proved += proved;
            audited.total += total;
            if faults.is_empty() && (proved < total || total == 0) {
                let fault = format!("{}: {proved} of {total} updates are proved", row.job);
                audited.faults.push(fault);
            }
            let faults = faults.iter().map(|fault| format!("{}: {fault}", row.job));
            audited.faults.extend(faults);
        }
        audited
    }
}

impl From<Found> for Verified {
    fn from(found: Found) -> Self {
        let same = found
            .compared
            .iter()
            .all(|part| part.differences.is_empty());
        let identical = same && found.audits.iter().all(|audit| audit.faults.is_empty());
        let dealt = found.blows.iter().filter(|blow| blow.dealt).count();
        Verified {
            proved: identical && dealt > 0,
            identical,
            dealt,
            found,
        }
    }
}

impl Verified {
    pub fn is_proved(&self) -> bool {
        self.proved
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.blows_table(), self.compared_table());
        let parts = self.found.compared.iter();
        let parts = parts.map(|part| {
            let what = part.what.as_str();
            (
                format!("{what}, undisturbed and disturbed"),
                &part.differences,
            )
        });
        let audits = self.found.audits.iter();
        let audits = audits.map(|audit| (format!("audit of {}", audit.run), &audit.faults));
        for (name, differences) in parts.chain(audits) {
            if differences.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{name}:");
            for difference in differences.iter().take(SHOWN) {
                let _ = writeln!(text, "  {difference}");
            }
            if let Some(more) = differences.len().checked_sub(SHOWN).filter(|n| *n > 0) {
                let _ = writeln!(text, "  and {more} more");
            }
            text.push('\n');
        }
        for note in self.found.compared.iter().flat_map(|part| &part.notes) {
            let _ = writeln!(text, "note: {note}");
        }
        let _ = writeln!(
            text,
            "undisturbed {}, disturbed {}; both are kept in {}",
            units::duration(self.found.undisturbed_seconds),
            units::duration(self.found.disturbed_seconds),
            self.found.folder.display()
        );
        text + &self.verdict()
    }

    fn blows_table(&self) -> String {
        let mut table = table::new(&[
            Column::Number("kill"),
            Column::Text("by"),
            Column::Number("moment"),
            Column::Text("after"),
            Column::Number("updates repeated"),
            Column::Text("what came of it"),
        ]);
        for (number, blow) in (1..).zip(&self.found.blows) {
            table.add_row([
                number.to_string(),
                blow.name(),
                format!("{:.1} %", 100.0 * blow.share),
                blow.place(),
                table::or_dash(blow.dealt.then_some(blow.repeated)),
                blow.outcome.clone(),
            ]);
        }
        format!("{}\n", table.trim_fmt())
    }

    fn compared_table(&self) -> String {
        let mut table = table::new(&[
            Column::Text("compared"),
            Column::Number("count"),
            Column::Number("bytes"),
            Column::Text("verdict"),
        ]);
        let verdict = |differences: &[String], good: &str| match differences.len() {
            0 => good.to_owned(),
            count => units::count(count, "difference", "differences"),
        };
        for part in &self.found.compared {
            table.add_row([
                part.what.as_str().to_owned(),
                part.count.to_string(),
                table::or_dash(part.bytes.map(units::bytes)),
                verdict(&part.differences, "identical"),
            ]);
        }
        for audit in &self.found.audits {
            table.add_row([
                format!("audit of {}", audit.run),
                format!("{}/{}", audit.proved, audit.total),
                "-".to_owned(),
                match audit.faults.len() {
                    0 => "proved".to_owned(),
                    count => units::count(count, "fault", "faults"),
                },
            ]);
        }
        format!("{}\n", table.trim_fmt())
    }

    fn verdict(&self) -> String {
        let dealt = self.dealt;
        let kills = units::count(self.found.blows.len(), "kill", "kills");
        let again = format!("(--verify-seed {})", self.found.seed);
        match (self.identical, dealt) {
            (false, _) => format!("NOT the same: {dealt} of {kills} dealt {again}"),
            (true, 0) => format!(
                "NOTHING PROVED: the run was over before any of {kills} came {again}: give more of them, or a longer run"
            ),
            (true, _) if dealt < self.found.blows.len() => format!(
                "identical: the resumes were exact; only {dealt} of {kills} came in time {again}"
            ),
            (true, _) => format!("identical: {kills} dealt, and every resume was exact {again}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use launcher::What;

    use super::super::course::Weapon;
    use super::*;

    fn blow(dealt: bool) -> Blow {
        Blow {
            weapon: Weapon::KillRank,
            share: 0.25,
            rank: dealt.then_some(1),
            job: Some("stage1a".into()),
            step: Some(7),
            dealt,
            outcome: "as it may be".into(),
            repeated: 2,
        }
    }

    fn audited(faults: &[&str]) -> Audited {
        Audited {
            run: "disturbed".into(),
            proved: 9,
            total: 10,
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        }
    }

    /// Of these blows, differences and faults.
    fn verified(blows: Vec<Blow>, differences: &[String], faults: &[&str]) -> Verified {
        let compared = Compared {
            what: What::Weights,
            count: 3,
            bytes: Some(1_500_000),
            differences: differences.to_vec(),
            notes: Vec::new(),
        };
        Verified::from(Found {
            folder: "runs/small-verify-resume".into(),
            seed: 11,
            undisturbed_seconds: 61.0,
            disturbed_seconds: 90.0,
            blows,
            compared: vec![compared],
            audits: vec![audited(faults)],
        })
    }

    fn assert_contains(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }

    #[test]
    fn runs_that_are_the_same_are_proved_by_the_blows_that_were_dealt() {
        let all = verified(vec![blow(true), blow(true)], &[], &[]);
        assert!(all.is_proved());
        let parts = ["SIGKILL of rank 1", "25.0 %", "stage1a, step 7", "1.5 MB"];
        assert_contains(&all.text(), &parts);
        assert_contains(
            &all.text(),
            &["identical: 2 kills dealt", "--verify-seed 11"],
        );

        let some = verified(vec![blow(true), blow(false)], &[], &[]);
        assert!(some.is_proved());
        assert_contains(&some.text(), &["only 1 of 2 kills came in time"]);
    }

    #[test]
    fn without_a_blow_nothing_is_proved() {
        let none = verified(vec![blow(false)], &[], &[]);
        assert!(!none.is_proved() && none.identical);
        assert_contains(&none.text(), &["NOTHING PROVED", "--verify-seed 11"]);
    }

    #[test]
    fn a_difference_and_a_fault_of_an_audit_are_both_no_proof_and_named() {
        let differences: Vec<String> = (0..20).map(|n| format!("weight{n} differs")).collect();
        let differ = verified(vec![blow(true)], &differences, &[]);
        assert!(!differ.is_proved());
        let parts = [
            "20 differences",
            "weight11 differs",
            "and 8 more",
            "NOT the same",
        ];
        assert_contains(&differ.text(), &parts);
        assert!(!differ.text().contains("weight12"));

        let torn = verified(vec![blow(true)], &[], &["line 3 is not what was written"]);
        assert!(!torn.is_proved());
        let parts = [
            "audit of disturbed",
            "9/10",
            "1 fault",
            "line 3 is not",
            "NOT the same",
        ];
        assert_contains(&torn.text(), &parts);
    }
}
