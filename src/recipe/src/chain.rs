//! `extends`: a recipe in a file that lies over another file's.

use std::path::{Path, PathBuf};

use crate::fault::RecipeError;
use crate::read::Source;
use crate::reader::Reader;
use crate::tree::{Node, Value, parse_document};

const KEY: &str = "extends";

/// A recipe's tree, with what it extends below it, and the documents that it came from: the file itself first.
///
/// # Errors
/// A file that cannot be read or parsed; files that extend each other in a circle. Those below the first are told at the line
/// that names them, with the chain that led there.
pub(crate) fn read(path: &Path) -> Result<(Node, Vec<Source>), RecipeError> {
    let mut documents = vec![Source::file(path)?];
    let mut paths = vec![path.to_owned()];
    let mut trees = Vec::new();
    loop {
        let number = trees.len();
        let Source { name, text } = &documents[number];
        let mut tree = parse_document(text, name, number)?;
        let extends = tree.take(KEY);
        trees.push(tree);
        let Some(extends) = extends else { break };
        let refuse = |message: String, help: &str| {
            let reader = Reader::new(&documents);
            reader.fault(&extends.place, KEY, message, help.into());
            RecipeError::Faults(reader.faults.into_inner())
        };
        let Value::Text(named) = &extends.value else {
            return Err(refuse(
                format!("expected a file, found {}", extends.value.describe()),
                "for example `extends: rsna2022.yaml`; it is relative to the file that it stands in",
            ));
        };
        let next = beside(&paths[number], named);
        let chain = |paths: &[PathBuf]| {
            let paths = paths.iter().chain([&next]);
            let shown: Vec<String> = paths.map(|path| path.display().to_string()).collect();
            shown.join(" -> ")
        };
        if paths.iter().any(|path| is_same(path, &next)) {
            return Err(refuse(
                format!(
                    "these recipes extend each other in a circle: {}",
                    chain(&paths)
                ),
                "let the last of them stand on its own",
            ));
        }
        let source = std::fs::read_to_string(&next).map_err(|error| {
            refuse(
                format!(
                    "cannot read {}: {error} ({})",
                    next.display(),
                    chain(&paths)
                ),
                "write its path relative to the file that it stands in",
            )
        })?;
        documents.push(Source {
            name: next.display().to_string(),
            text: source,
        });
        paths.push(next);
    }
    let mut merged = Node::null();
    for tree in trees.into_iter().rev() {
        merged = merged.overlaid(tree);
    }
    Ok((merged, documents))
}

/// `named` from the folder of `path`.
fn beside(path: &Path, named: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(named)
}

/// Whether two paths lead to one file.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Refuses the key where no file stands behind it: in a text, or in `--set`.
pub(crate) fn refuse(reader: &Reader, tree: &mut Node) {
    if let Some(node) = tree.take(KEY) {
        reader.fault(
            &node.place,
            KEY,
            "only a recipe in a file can extend another".into(),
            "write it as the first line of a file".into(),
        );
    }
}

#[cfg(test)]
mod tests;
