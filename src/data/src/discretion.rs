//! What may be told of the data's files: their place in the data set, and no name that may be a patient's.

use std::cmp::Reverse;
use std::path::Path;

use crate::StudyUid;

/// Of a path so many bytes are looked at.
const LONGEST: usize = 1024;
/// What scanners and people call files and folders after what they hold.
const WORDS: [&str; 26] = [
    "bounding",
    "boxes",
    "csv",
    "ct",
    "dcm",
    "dicom",
    "dicomdir",
    "exclude",
    "gz",
    "i",
    "im",
    "image",
    "images",
    "img",
    "label",
    "labels",
    "nii",
    "s",
    "se",
    "segmentation",
    "segmentations",
    "series",
    "slice",
    "test",
    "train",
    "json",
];
/// More digits than a slice's number has are a date or a number of somebody's, but in a UID.
const MOST_DIGITS: usize = 4;
/// And a UID has more parts than a date.
const UID_PARTS: usize = 5;
/// What follows a path in a message, where a name in it may hold blanks.
const BEHIND_A_PATH: [&str; 4] = [": ", "; ", "\"", ", line "];

/// Tells of the files below some folders by what the recipe calls these.
///
/// The folder of a study is told as it is: events name studies. Other names are told where they are numbers, UIDs or words for
/// what they hold, such as `IM0001` or `slice_12.dcm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discretion {
    places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    folder: String,
    called: String,
    /// Whether spinectl gave the names in it.
    is_ours: bool,
}

impl Discretion {
    /// What stands for a name that may be somebody's.
    pub const A_NAME: &str = "[a name]";

    /// A place of the data, and what the recipe or the command line calls it.
    pub fn hiding(self, folder: &Path, called: &'static str) -> Self {
        self.with(folder.display().to_string(), called.to_owned(), false)
    }

    /// A place whose names are spinectl's own.
    pub fn calling(self, folder: &Path, called: &'static str) -> Self {
        self.with(folder.display().to_string(), called.to_owned(), true)
    }

    /// A place of which everything may be told, though it may lie in one of the others.
    pub fn sparing(self, folder: &Path) -> Self {
        let folder = folder.display().to_string();
        self.with(folder.clone(), folder, true)
    }

    fn with(mut self, folder: String, called: String, is_ours: bool) -> Self {
        let folder = folder.trim_end_matches('/').to_owned();
        if !folder.is_empty() {
            self.places.push(Place {
                folder,
                called,
                is_ours,
            });
        }
        self
    }

    /// The text with every path below these places told so. Where a path ends in it is looked up on the disk, as names may hold
    /// blanks; of one that is not there, the names last until what follows a path in a message.
    pub fn of(&self, text: &str) -> String {
        let mut told = String::with_capacity(text.len());
        let mut rest = text;
        loop {
            let found = self.places.iter().filter_map(|place| {
                let at = place.find(rest)?;
                Some((at, Reverse(place.folder.len()), place))
            });
            let first = found.min_by_key(|(at, length, _)| (*at, *length));
            let Some((at, _, place)) = first else {
                told.push_str(rest);
                return told;
            };
            let (before, from) = rest.split_at(at);
            told.push_str(before);
            told.push_str(&place.called);
            let (_, after) = from.split_at(place.folder.len());
            let (inner, after) = after.split_at(place.end_of_path(after));
            place.tell(inner, &mut told);
            rest = after;
        }
    }
}

impl Place {
    /// Where the folder stands in a text as a path, and not as a word or the end of another path.
    fn find(&self, text: &str) -> Option<usize> {
        let is_path = self.folder.contains('/');
        let mut places = text.match_indices(&self.folder).map(|(at, _)| at);
        places.find(|at| {
            let (before, from) = text.split_at(*at);
            let after = from.get(self.folder.len()..).unwrap_or_default();
            let begins = !before.ends_with(|c| c == '/' || is_of_a_name(c));
            begins && (after.starts_with('/') || is_path && !after.starts_with(is_of_a_name))
        })
    }

    /// How much of `after`, which follows the folder, is a path in it.
    fn end_of_path(&self, after: &str) -> usize {
        if !after.starts_with('/') {
            return 0;
        }
        let line = after.lines().next().unwrap_or_default();
        let line = &line[..line.floor_char_boundary(LONGEST)];
        let ends = line
            .char_indices()
            .filter(|(_, c)| !is_of_a_name(*c) && *c != '/');
        let mut ends: Vec<usize> = ends.map(|(at, _)| at).collect();
        ends.push(line.len());
        let is_there = |end: &&usize| {
            let inner = line.get(1..**end).unwrap_or_default();
            Path::new(&self.folder)
                .join(inner)
                .symlink_metadata()
                .is_ok()
        };
        let whole = ends.iter().rev().find(is_there).copied();
        whole.unwrap_or_else(|| end_of_absent(line, ends.first().copied().unwrap_or(0)))
    }

    /// `path` begins with a slash, or is empty.
    fn tell(&self, path: &str, told: &mut String) {
        let names = path.split('/').skip(1).enumerate();
        for (depth, name) in names {
            // Below train_images and the like.
            let is_study = depth == 1 && StudyUid::new(name).is_ok();
            told.push('/');
            told.push_str(match self.is_ours || is_study || is_nobodys(name) {
                true => name,
                false => Discretion::A_NAME,
            });
        }
    }
}

/// Where a path ends that is not on the disk; `first`: where its first name with a blank or the like would.
fn end_of_absent(line: &str, first: usize) -> usize {
    let names: Vec<&str> = line[..first].split('/').skip(1).collect();
    // Of a study that is missing the name is known: it has no blank. Words alone may be the beginning of a person's.
    let is_whole = match names.as_slice() {
        [name] => is_nobodys(name),
        [_, study] => StudyUid::new(study).is_ok() && study.contains(|c: char| c.is_ascii_digit()),
        _ => false,
    };
    if is_whole {
        return first;
    }
    let ends = BEHIND_A_PATH.iter().filter_map(|behind| line.find(behind));
    ends.min().unwrap_or(line.len())
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Whether a name holds but words for what it is, and numbers.
fn is_nobodys(name: &str) -> bool {
    let stem = name.strip_suffix(".dcm").unwrap_or(name);
    if StudyUid::new(stem).is_ok_and(|uid| uid.is_dicom()) && stem.split('.').count() >= UID_PARTS {
        return true;
    }
    let is_word = |word: &str| WORDS.contains(&word.to_ascii_lowercase().as_str());
    let mut words = name
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty());
    let numbers = name.split(|c: char| !c.is_ascii_digit());
    let digits = numbers.map(|number| number.trim_start_matches('0').len());
    name.chars().all(is_of_a_name) && words.all(is_word) && digits.sum::<usize>() <= MOST_DIGITS
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_told_by_their_place_and_names_of_people_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("ward 7");
        let study = root.join("train_images/1.2.826.0.1");
        fs::create_dir_all(study.join("DOE JOHN")).unwrap();
        for file in [
            "IM0007",
            "12.dcm",
            "DOE JOHN/1.dcm",
            "19470823.dcm",
            "Doe: 1.dcm",
        ] {
            fs::write(study.join(file), "").unwrap();
        }
        let cache = folder.path().join("cache");
        let run = root.join("runs/a");
        let discretion = Discretion::default()
            .hiding(&root, "data.root")
            .calling(&cache, "data.cache.dir")
            .sparing(&run);
        let of = |text: &str| discretion.of(&text.replace("ROOT", root.to_str().unwrap()));
        let told = "data.root/train_images/1.2.826.0.1";
        for (file, name) in [
            ("IM0007", "IM0007"),
            ("12.dcm", "12.dcm"),
            ("1.2.3.4.44444444.dcm", "1.2.3.4.44444444.dcm"),
            ("DOE JOHN/1.dcm", "[a name]/1.dcm"),
            ("19470823.dcm", "[a name]"),
            ("1947-08-23.dcm", "[a name]"),
            ("23.08.1947.dcm", "[a name]"),
            ("Doe: 1.dcm", "[a name]"),
            ("not there, Doe.dcm", "[a name]"),
            ("M\u{fffd}ller^Zeb.dcm", "[a name]"),
            ("ROE JANE/1.dcm", "[a name]/1.dcm"),
        ] {
            let text = format!(
                "cannot read slice ROOT/train_images/1.2.826.0.1/{file}: Rows is missing; mend it"
            );
            let expected = format!("cannot read slice {told}/{name}: Rows is missing; mend it");
            assert_eq!(of(&text), expected);
        }
        assert_eq!(
            of("ROOT/train_images/7.8 does not exist, \"ROOT/Doe.csv\" neither;\nROOT is a folder"),
            "data.root/train_images/7.8 does not exist, \"data.root/[a name]\" neither;\ndata.root is a folder"
        );
        assert_eq!(
            of(&format!("{}/ab/cd12345678 is torn", cache.display())),
            "data.cache.dir/ab/cd12345678 is torn"
        );
        let full = format!("cannot write {}/jobs/Doe 7: no space", run.display());
        assert_eq!(of(&full), full);
    }

    #[test]
    fn a_folder_whose_name_is_a_word_swallows_none() {
        let of = |root: &str, text: &str| {
            Discretion::default()
                .hiding(Path::new(root), "data.root")
                .of(text)
        };
        let text = "rank 0, data wait: data/train.csv and mydata/x are no data";
        let told = "rank 0, data wait: data.root/train.csv and mydata/x are no data";
        assert_eq!(of("data", text), told);
        assert_eq!(
            of(".", "The end. See ./train.csv."),
            "The end. See data.root/train.csv."
        );
        assert_eq!(
            of("/a/b", "/a/bc, /x/a/b, /a/b"),
            "/a/bc, /x/a/b, data.root"
        );
    }
}
