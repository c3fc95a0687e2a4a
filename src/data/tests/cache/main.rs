//! The cache on disk: what it returns is what is decoded, whatever is done to its folder.

mod crash;
mod damage;
mod entries;
mod fixture;
mod limits;
