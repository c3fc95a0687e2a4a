//! The crate as its users see it.

mod crash;
mod damage;
mod fitting;
mod fixture;
mod retention;
mod sound;
mod weights;
