//! Where the two runs of a verification are made: beside each other, in a folder that holds neither them nor another run.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use recipe::Recipe;

use crate::exit::wrong_use;

pub const UNDISTURBED: &str = "undisturbed";
pub const DISTURBED: &str = "disturbed";

/// ```text
/// FOLDER/recipe.yaml        resolved; both are launched from it
/// FOLDER/undisturbed/       a run directory
/// FOLDER/undisturbed.log    what its launch said
/// FOLDER/disturbed/         a run directory
/// FOLDER/disturbed.log      what its launches said
/// ```
pub struct Place(PathBuf);

impl Place {
    /// Refuses a folder that holds a run or an earlier verification.
    pub fn make(folder: &Path, recipe: &Recipe) -> anyhow::Result<Self> {
        if ["run.db", "plan.json"]
            .iter()
            .any(|name| folder.join(name).exists())
        {
            return Err(wrong_use(format!(
                "{} holds a run, and --verify-resume makes two of its own: give another --run-dir",
                folder.display()
            )));
        }
        let make = |path: &Path| format!("cannot make {}", path.display());
        fs::create_dir_all(folder).with_context(|| make(folder))?;
        if recipe.private {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
                .with_context(|| format!("cannot make {} private", folder.display()))?;
        }
        for name in [UNDISTURBED, DISTURBED] {
            let run = folder.join(name);
            match fs::create_dir(&run) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(wrong_use(format!(
                        "{} is there already: a verification begins anew; delete {}, or give another --run-dir",
                        run.display(),
                        folder.display()
                    )));
                }
                made => made.with_context(|| make(&run))?,
            }
        }
        let place = Place(folder.to_owned());
        let path = place.recipe();
        fs::write(&path, recipe::to_yaml(recipe)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(place)
    }

    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe.yaml")
    }

    pub fn run(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }
}
