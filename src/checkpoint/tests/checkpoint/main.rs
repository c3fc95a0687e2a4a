//! The crate as its users see it.

mod chance;
mod crash;
mod damage;
mod fitting;
mod fixture;
mod parts;
mod retention;
mod soak_damage;
mod soak_kill;
mod soak_parts;
mod sound;
mod weights;
