//! TensorBoard event files, written without TensorFlow: [`Board`] turns run events into curves and
//! pictures, one [`Writer`] makes one file.
//!
//! A file is a sequence of TFRecords, each one `tensorboard.Event` in protocol buffer encoding; the
//! first says `brain.Event:2`. TensorBoard reads the files of a directory in the order of their
//! names and, at a `SessionLog` of status START, forgets what it has read from that step on: this is
//! how a resumed job takes back the steps that are done again.

mod allowance;
mod board;
mod by_samples;
mod curves;
mod error;
mod job;
mod lazy_file;
mod message;
mod picture;
mod plugin;
mod record;
mod standing;
mod summary;
mod writer;

pub use board::Board;
pub use error::Error;
pub use writer::Writer;
