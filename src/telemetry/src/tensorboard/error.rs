//! What can go wrong in writing for TensorBoard. None of it need stop a training.

use std::io;
use std::path::PathBuf;

/// Why records for TensorBoard are not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "TensorBoard records stop here, training goes on: cannot write {}: {source}. \
         Free space there or make it writable: jobs that begin later have theirs then, this one with its next launch. \
         The same is not said again",
        path.display()
    )]
    Write { path: PathBuf, source: io::Error },
    #[error("a picture is not shown in TensorBoard, all else goes on: {}: {source}", path.display())]
    Picture { path: PathBuf, source: io::Error },
    #[error(
        "TensorBoard records are not written for job `{job}`: its name cannot be a folder's. \
         Use letters, digits, `-`, `_` and `.`"
    )]
    JobName { job: String },
}
