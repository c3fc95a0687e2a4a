//! Where the program of a rank is.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::LaunchError;

const VARIABLE: &str = "SPINECTL_RANK";
const NAME: &str = "spinectl-rank";

/// `$SPINECTL_RANK`, else `spinectl-rank` beside the program that is running.
pub fn rank_program() -> Result<PathBuf, LaunchError> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return check(path, "the environment variable SPINECTL_RANK names it");
    }
    let own = env::current_exe().map_err(LaunchError::io("find", Path::new("this program")))?;
    check(own.with_file_name(NAME), "it belongs beside this program")
}

fn check(path: PathBuf, why_there: &str) -> Result<PathBuf, LaunchError> {
    let fault = match path.metadata() {
        Err(error) => error.to_string(),
        Ok(about) if !about.is_file() => "it is not a file".to_owned(),
        Ok(about) if about.permissions().mode() & 0o111 == 0 => "it is not executable".to_owned(),
        Ok(_) => return Ok(path),
    };
    Err(LaunchError::RankProgram(format!(
        "cannot start ranks with {} ({why_there}): {fault}. Build it by `make build`, \
         or set SPINECTL_RANK to where it is",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named_with_the_way_to_build_it() {
        let error = check("/nowhere/spinectl-rank".into(), "w").unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/spinectl-rank") && text.contains("make build"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_run_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = check(file.path().into(), "w").unwrap_err().to_string();
        assert!(text.contains("not executable"), "{text}");
        assert!(check("/bin/sh".into(), "w").is_ok());
    }
}
