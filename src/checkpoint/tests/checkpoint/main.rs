//! The crate as its users see it.

mod crash;
mod damage;
mod fixture;
mod retention;
mod sound;
