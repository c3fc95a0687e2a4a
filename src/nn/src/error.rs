//! What can fail in a network: the libtorch call, or the name of an architecture.

/// An error of a network.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    #[error("there is no architecture `{name}` here; known: {known}")]
    UnknownArchitecture { name: String, known: String },
    #[error("{0}")]
    Torch(#[from] tch::TchError),
}

pub(crate) type Result<T> = std::result::Result<T, NnError>;
