//! Keeps the places of the data out of what is sent: a file's name may be a patient's.

use std::path::Path;

const LEFT_OUT: &str = "[a path of the data is left out]";

/// Folders whose paths are not passed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discretion {
    folders: Vec<String>,
}

impl Discretion {
    /// `folders` as the recipe spells them: messages hold them so, or in full.
    pub fn new<'p>(folders: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut texts = Vec::new();
        for folder in folders {
            let full = folder.canonicalize().ok();
            for spelled in [Some(folder), full.as_deref()].into_iter().flatten() {
                let text = spelled.display().to_string();
                let text = text.trim_end_matches('/');
                // `.` and the like are parts of ordinary words: only what lies in it gives it away.
                texts.push(match text.len() {
                    0..4 => format!("{text}/"),
                    _ => text.to_owned(),
                });
            }
        }
        Discretion { folders: texts }
    }

    /// The text without such paths. A name may hold blanks, so what follows is left out up to the line's end.
    pub fn of(&self, text: &str) -> String {
        let lines: Vec<String> = text.lines().map(|line| self.line(line)).collect();
        lines.join("\n")
    }

    fn line(&self, line: &str) -> String {
        let places = self.folders.iter().filter_map(|folder| line.find(folder));
        match places.min().and_then(|place| line.get(..place)) {
            Some(before) => format!("{before}{LEFT_OUT}"),
            None => line.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_data_are_cut_off_to_the_end_of_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("data");
        std::fs::create_dir(&real).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let discretion = Discretion::new([link.as_path()]);
        for place in [&link, &real.canonicalize().unwrap()] {
            let text = format!(
                "cannot read {}/DOE JOHN/1.dcm: torn\nand more",
                place.display()
            );
            assert_eq!(
                discretion.of(&text),
                format!("cannot read {LEFT_OUT}\nand more")
            );
        }
        assert_eq!(discretion.of("nothing of it"), "nothing of it");
    }

    #[test]
    fn a_short_name_of_the_folder_does_not_swallow_sentences() {
        let discretion = Discretion::new([Path::new(".")]);
        assert_eq!(discretion.of("The end. And 0.5."), "The end. And 0.5.");
        assert_eq!(
            discretion.of("cannot read ./DOE/1.dcm"),
            format!("cannot read {LEFT_OUT}")
        );
    }
}
