//! What can fail in a network: the libtorch call, the name of an architecture, or what a pass was given from outside.

/// An error of a network.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    #[error("there is no architecture `{name}` here; known: {known}")]
    UnknownArchitecture { name: String, known: String },
    #[error(
        "{arch}: in_chans is {in_chans}; an image has at least one channel and at most 1,024 here"
    )]
    InChans { arch: String, in_chans: i64 },
    #[error("{what} is {value}; a rate of dropping lies from 0 up to, not including, 1")]
    Rate { what: &'static str, value: f64 },
    #[error(
        "a batch normalisation in training was given one value for each of its {channels} channels and cannot tell their \
         spread: give more than one image at once"
    )]
    OneValue { channels: i64 },
    #[error("{0}")]
    Torch(#[from] tch::TchError),
    /// From a [`crate::SyncNorm`] or a [`crate::Recompute`].
    #[error(transparent)]
    Outside(Box<dyn std::error::Error + Send + Sync>),
}

pub(crate) type Result<T> = std::result::Result<T, NnError>;
