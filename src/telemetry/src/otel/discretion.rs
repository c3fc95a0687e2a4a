//! Keeps the places of the data out of what is sent: a file's name may be a patient's.

use std::path::Path;

const LEFT_OUT: &str = "[a path of the data is left out]";

/// Places whose paths are not passed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discretion {
    places: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    spelled: String,
    /// `data`, or `.`: this stands in ordinary sentences, and only with a `/` behind it is it a path.
    is_ordinary: bool,
}

impl Discretion {
    /// `paths` as the recipe spells them: messages hold them so, or in full.
    pub fn new<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut places = Vec::new();
        for path in paths {
            let full = path.canonicalize().ok();
            for spelled in [Some(path), full.as_deref()].into_iter().flatten() {
                let text = spelled.display().to_string();
                let spelled = text.trim_end_matches('/').to_owned();
                let is_word = spelled.bytes().all(|byte| byte.is_ascii_lowercase());
                places.push(Place {
                    is_ordinary: is_word || spelled.len() < 4,
                    spelled,
                });
            }
        }
        Discretion { places }
    }

    /// The text without such paths. A name may hold blanks, so what follows is left out up to the line's end.
    pub fn of(&self, text: &str) -> String {
        let lines: Vec<String> = text.lines().map(|line| self.line(line)).collect();
        lines.join("\n")
    }

    fn line(&self, line: &str) -> String {
        let found = self.places.iter().filter_map(|place| place.find(line));
        match found.min().and_then(|at| line.get(..at)) {
            Some(before) => format!("{before}{LEFT_OUT}"),
            None => line.to_owned(),
        }
    }
}

impl Place {
    /// Where it first stands in a line, and not as a part of another word.
    fn find(&self, line: &str) -> Option<usize> {
        let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
        let begins_a_word = self.spelled.starts_with(is_of_word);
        let mut found = line.match_indices(&self.spelled);
        found.find_map(|(at, spelled)| {
            let before = line.get(..at)?.chars().next_back();
            let after = line.get(at + spelled.len()..)?.chars().next();
            // Behind a dot it is a part of what the recipe calls it: `data.root`, whatever the folder's name.
            let is_whole = !(begins_a_word && before.is_some_and(|c| is_of_word(c) || c == '.'));
            let is_path = match self.is_ordinary {
                true => after == Some('/'),
                false => !after.is_some_and(is_of_word),
            };
            (is_whole && is_path).then_some(at)
        })
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
    fn a_folder_that_is_called_like_a_word_does_not_swallow_sentences() {
        let split = Discretion::new([Path::new("split")]);
        let told = "data.split/folds.csv, line 3 is torn";
        assert_eq!(split.of(told), told);
        let discretion = Discretion::new([Path::new("data")]);
        for ordinary in ["rank 0, data wait at step 3: killed", "metadata/x is odd"] {
            assert_eq!(discretion.of(ordinary), ordinary);
        }
        for path in ["data/DOE/1.dcm", "\"data/DOE/1.dcm\"", "./data/DOE"] {
            let told = discretion.of(&format!("cannot read {path}: torn"));
            assert!(!told.contains("DOE"), "{told}");
        }
        let discretion = Discretion::new([Path::new("/scans"), Path::new("DOE_JOHN")]);
        let others = "/scans2/x and ADOE_JOHN are others";
        assert_eq!(discretion.of(others), others);
        for path in ["/scans", "/mnt/scans/x", "DOE_JOHN"] {
            let told = discretion.of(&format!("no {path}: torn"));
            assert!(!told.contains("torn"), "{told}");
        }
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
