//! What can be wrong with a recipe, and how it is told.

use std::fmt;
use std::path::PathBuf;

/// One fault: where it is, what it is, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// `file:line:column`, or the `--set` argument.
    pub place: String,
    /// The source line, where there is one.
    pub source_line: Option<(u64, String)>,
    /// Column of the fault, counted from 1.
    pub column: u64,
    /// The key's path: `stage2.learning_rate`.
    pub path: String,
    pub message: String,
    pub help: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}: {}", self.place, self.path, self.message)?;
        if let Some((number, text)) = &self.source_line {
            let gutter = format!("{number:>5} | ");
            let caret = gutter.len() + (self.column.max(1) as usize - 1);
            writeln!(f, "{gutter}{text}\n{:caret$}^", "")?;
        }
        write!(f, "      {}", self.help)
    }
}

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error(
        "cannot read the recipe {path}: {source}\n      check the path, or start from configs/demo.yaml"
    )]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{place}: not valid YAML\n{message}")]
    Syntax { place: String, message: String },
    #[error("{}", list(.0))]
    Faults(Vec<Fault>),
    #[error("cannot write the resolved recipe as YAML: {0}")]
    Write(String),
}

fn list(faults: &[Fault]) -> String {
    let mut text = match faults.len() {
        1 => String::new(),
        n => format!("the recipe has {n} faults\n"),
    };
    for (i, fault) in faults.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        text.push_str(&fault.to_string());
    }
    text
}
