//! What can go wrong in writing for TensorBoard. None of it need stop a training.

use std::io;
use std::path::PathBuf;

/// Why records for TensorBoard are not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "a job's TensorBoard records stop here, training goes on: cannot write {}: {source}. \
         Free space there or make it writable; they begin again when the job is next started. Other jobs \
         that this befalls are not named",
        path.display()
    )]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "a picture is not shown in TensorBoard, all else goes on: {}: {source}. Of other pictures of its job this is \
         not said",
        path.display()
    )]
    Picture { path: PathBuf, source: io::Error },
    #[error(
        "TensorBoard shows the pictures and histograms of some evaluations of job `{job}` only, evenly over its training, \
         so that its files stay small: lower `tensorboard.pictures` to see more of them"
    )]
    Thinned { job: String },
    #[error(
        "TensorBoard records are not written for job `{job}`: its name cannot be a folder's. \
         Use letters, digits, `-`, `_` and `.`"
    )]
    JobName { job: String },
}
