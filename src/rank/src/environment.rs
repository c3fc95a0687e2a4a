//! Everything that a rank takes from its environment: who it is, where the others meet, where events go.

use std::env;
use std::os::fd::RawFd;
use std::str::FromStr;

use anyhow::{Result, bail};
use train::{Place, Tcp};

use crate::fault::Fault;

/// torchrun's variables, and spinectl's own: three descriptors, and a fault for tests.
#[derive(Clone, Debug)]
pub struct Environment {
    pub rank: usize,
    pub local_rank: usize,
    pub world_size: usize,
    /// A file inherited from the launcher, or torchrun's address.
    pub place: Place,
    /// Where events go, a line each; standard output without it.
    pub event_fd: Option<RawFd>,
    /// Memory that is shared with the launcher: see [`crate::lifeline`].
    pub lifeline_fd: Option<RawFd>,
    /// For tests: see [`Fault`].
    pub fault: Option<Fault>,
}

impl Environment {
    pub fn read() -> Result<Self> {
        let world_size = number("WORLD_SIZE")?.unwrap_or(1);
        let rank = number("RANK")?.unwrap_or(0);
        if rank >= world_size {
            bail!(
                "RANK is {rank} and WORLD_SIZE {world_size}: ranks count from 0 to WORLD_SIZE - 1"
            );
        }
        let store_fd = number("SPINECTL_STORE_FD")?;
        let master_port = number("MASTER_PORT")?;
        if world_size > 1 && store_fd.is_none() && master_port.is_none() {
            bail!(
                "WORLD_SIZE is {world_size}, but MASTER_PORT is not set: ranks would not find each other"
            );
        }
        Ok(Environment {
            rank,
            local_rank: number("LOCAL_RANK")?.unwrap_or(rank),
            world_size,
            place: match store_fd {
                Some(fd) => Place::File(fd),
                None => Place::Tcp(Tcp {
                    master_addr: env::var("MASTER_ADDR").unwrap_or_else(|_| "127.0.0.1".into()),
                    master_port: master_port.unwrap_or(0),
                    listen_fd: None,
                }),
            },
            event_fd: number("SPINECTL_EVENT_FD")?,
            lifeline_fd: number("SPINECTL_LIFELINE_FD")?,
            fault: match env::var("SPINECTL_FAULT") {
                Ok(text) => Some(text.parse().map_err(anyhow::Error::msg)?),
                Err(_) => None,
            },
        })
    }
}

fn number<T: FromStr>(name: &str) -> Result<Option<T>> {
    let Some(text) = env::var_os(name) else {
        return Ok(None);
    };
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => bail!("the environment variable {name} is {text:?}: expected a number"),
    }
}
