//! Whether the run directory is still the one in which the launch began.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::run_dir::RunDir;

/// The run directory itself, wherever it goes: while it is open, nothing made anew at its place is taken for it.
#[derive(Debug)]
pub(crate) struct Presence {
    dir: RunDir,
    folder: File,
}

impl Presence {
    pub fn of(dir: &RunDir) -> io::Result<Self> {
        Ok(Presence {
            dir: dir.clone(),
            folder: File::open(dir.root())?,
        })
    }

    /// What has become of it and what to do, where it is not at its place any more or its plan is gone. A file system
    /// that gives no answer for now is no such case.
    pub fn lost(&self) -> Option<String> {
        let root = self.dir.root().display();
        if is_gone(fs::metadata(self.dir.root()), self.folder.metadata()) {
            let fate = match self.whereabouts() {
                Some(Whereabouts::Deleted) => "it was deleted while the run was at work, so that nothing is left to go on \
                                               from: launch again to begin anew"
                    .to_owned(),
                Some(Whereabouts::Moved(to)) => format!(
                    "it was moved to {to} while the run was at work: launch again with `--run-dir {to}`, or move it back \
                     first, to go on from the newest checkpoints",
                    to = to.display()
                ),
                None => "it was deleted, moved or unmounted while the run was at work: bring it back and launch again to \
                         go on from the newest checkpoints"
                    .to_owned(),
            };
            return Some(format!("{root} is gone: {fate}"));
        }
        let plan = fs::symlink_metadata(self.dir.plan());
        plan.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            .then(|| {
                format!(
                    "{root} is torn: its plan.json was deleted while the run was at work. Put back what was deleted and \
                     launch again; or delete the rest, and launch again to begin anew"
                )
            })
    }

    /// Where the kernel says that the open folder is; none where it does not say.
    fn whereabouts(&self) -> Option<Whereabouts> {
        let link = format!("/proc/self/fd/{}", self.folder.as_raw_fd());
        let now = fs::read_link(link).ok()?;
        if now.to_string_lossy().ends_with(" (deleted)") {
            return Some(Whereabouts::Deleted);
        }
        let found = fs::metadata(&now).ok()?;
        is_same(&found, &self.folder.metadata().ok()?).then_some(Whereabouts::Moved(now))
    }
}

enum Whereabouts {
    Deleted,
    Moved(PathBuf),
}

/// Whether what is found at the path is another folder than the one that is open, or none.
fn is_gone(at_path: io::Result<Metadata>, open: io::Result<Metadata>) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
    match (at_path, open) {
        (Ok(at_path), Ok(open)) => !is_same(&at_path, &open),
        (Err(error), _) => matches!(error.kind(), NotFound | NotADirectory),
        (_, Err(error)) => error.kind() == StaleNetworkFileHandle,
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn watched(folder: &Path) -> (PathBuf, Presence) {
        let root = folder.canonicalize().unwrap().join("run");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("plan.json"), "").unwrap();
        let presence = Presence::of(&RunDir::open(&root).unwrap()).unwrap();
        assert_eq!(presence.lost(), None);
        (root, presence)
    }

    #[test]
    fn a_folder_that_is_deleted_is_missed_also_when_another_stands_there() {
        let folder = tempfile::tempdir().unwrap();
        let (root, presence) = watched(folder.path());
        fs::remove_dir_all(&root).unwrap();
        let said = presence.lost().unwrap();
        assert!(said.contains("run is gone: it was deleted"), "{said}");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("plan.json"), "").unwrap();
        assert_eq!(presence.lost().unwrap(), said);
    }

    #[test]
    fn a_folder_that_is_moved_is_told_with_its_new_place() {
        let folder = tempfile::tempdir().unwrap();
        let (root, presence) = watched(folder.path());
        let elsewhere = root.with_file_name("elsewhere");
        fs::rename(&root, &elsewhere).unwrap();
        let said = presence.lost().unwrap();
        let wanted = format!("launch again with `--run-dir {}`", elsewhere.display());
        assert!(said.contains(&wanted), "{said}");
        fs::rename(&elsewhere, &root).unwrap();
        assert_eq!(presence.lost(), None);
    }

    #[test]
    fn a_folder_without_its_plan_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let (root, presence) = watched(folder.path());
        fs::remove_file(root.join("plan.json")).unwrap();
        assert!(presence.lost().unwrap().contains("run is torn"));
    }
}
