//! The crate as its users see it.

mod chance;
mod crash;
mod damage;
mod fitting;
mod fixture;
mod retention;
mod soak_damage;
mod soak_kill;
mod sound;
mod weights;
