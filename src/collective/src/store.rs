//! c10d's key-value store, which ranks meet over before they have a process group.

use std::cell::Cell;
use std::ffi::CString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::error::{CollectiveError, Result};
use crate::ffi::{self, Failure, call};
use crate::rendezvous::{Place, Rendezvous, Tcp, milliseconds};
use crate::socket;

/// A connection to the store; over TCP rank 0's also serves it, so rank 0 should be the last to drop its own.
///
/// Process groups keep the store alive for as long as they need it.
pub struct Store {
    handle: NonNull<ffi::Store>,
    rendezvous: Rendezvous,
    /// The address of this machine on the way to rank 0: Gloo listens there and nowhere else.
    local_address: IpAddr,
    /// How many process groups were built over this store, which every rank counts alike.
    groups: Cell<u64>,
}

// SAFETY: c10d's stores are not bound to a thread.
unsafe impl Send for Store {}

impl Store {
    /// Meets the other ranks, and waits until every one has arrived.
    ///
    /// Over TCP rank 0 serves and the others connect; it listens on `listen_fd` where it is given, else at `master_addr` (at
    /// all addresses only if that is no address of this machine's). A world of one rank without a `listen_fd` needs nothing
    /// and opens nothing.
    ///
    /// # Errors
    /// `RanksMissing` names who did not arrive; `Rendezvous` says why the store cannot be served or reached; `Invalid` covers
    /// a rank outside the world, a socket that does not listen at `master_port`, a descriptor that is no file, and two
    /// processes with one rank.
    pub fn connect(rendezvous: &Rendezvous) -> Result<Self> {
        rendezvous.check()?;
        let store = match &rendezvous.place {
            Place::Tcp(tcp) if rendezvous.world_size > 1 || tcp.listen_fd.is_some() => {
                Self::tcp(rendezvous, tcp.clone(), rendezvous.rank == 0)?
            }
            Place::File(fd) if rendezvous.world_size > 1 => Self::file(rendezvous, *fd)?,
            _ => return Self::in_process(rendezvous),
        };
        store.meet()?;
        Ok(store)
    }

    /// Meets the other ranks over a store that another program serves at a TCP address, under `prefix`: torchrun's agent does
    /// so (`TORCHELASTIC_USE_AGENT_STORE`), and a prefix for each attempt keeps attempts apart.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub fn join(rendezvous: &Rendezvous, prefix: &str) -> Result<Self> {
        rendezvous.check()?;
        let served = match &rendezvous.place {
            Place::Tcp(tcp) if tcp.listen_fd.is_none() => {
                Self::tcp(rendezvous, tcp.clone(), false)?
            }
            place => {
                return Err(CollectiveError::invalid(
                    "rendezvous",
                    format!("{place} was given to meet at, but the store is served elsewhere"),
                ));
            }
        };
        let store = served.prefixed(prefix)?;
        store.meet()?;
        Ok(store)
    }

    fn new(
        handle: *mut ffi::Store,
        rendezvous: &Rendezvous,
        local_address: IpAddr,
    ) -> Result<Self> {
        let handle = NonNull::new(handle).ok_or_else(|| {
            CollectiveError::invalid("store", "libtorch made none and reported no error")
        })?;
        Ok(Self {
            handle,
            rendezvous: rendezvous.clone(),
            local_address,
            groups: Cell::new(0),
        })
    }

    fn in_process(rendezvous: &Rendezvous) -> Result<Self> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the outputs live across the call.
        call(|message| unsafe {
            ffi::spc_store_in_process(milliseconds(rendezvous.timeout), &raw mut handle, message)
        })
        .map_err(|failure| rendezvous.error("store", failure))?;
        Self::new(handle, rendezvous, Ipv4Addr::LOCALHOST.into())
    }

    fn file(rendezvous: &Rendezvous, fd: RawFd) -> Result<Self> {
        socket::check_file(fd).map_err(|error| {
            let reason = format!("descriptor {fd} is no file to meet in: {error}");
            CollectiveError::invalid("rendezvous", reason)
        })?;
        let error = |failure| rendezvous.error("store", failure);
        // c10d opens the path for each operation, so that its locks hold between threads too.
        let path = ffi::c_string(&format!("/proc/self/fd/{fd}"), "path").map_err(error)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: `path` and the outputs live across the call.
        call(|message| unsafe {
            ffi::spc_store_file(
                path.as_ptr(),
                milliseconds(rendezvous.timeout),
                &raw mut handle,
                message,
            )
        })
        .map_err(error)?;
        Self::new(handle, rendezvous, Ipv4Addr::LOCALHOST.into())
    }

    fn tcp(rendezvous: &Rendezvous, mut tcp: Tcp, serves: bool) -> Result<Self> {
        let listening = match serves {
            false => None,
            true => Some(
                tcp.listen()?
                    .map_err(|error| rendezvous.failed("listen", error.to_string()))?,
            ),
        };
        let rendezvous = &Rendezvous {
            place: Place::Tcp(tcp.clone()),
            ..rendezvous.clone()
        };
        let error = |failure| rendezvous.error("store", failure);
        let host = ffi::c_string(&tcp.master_addr, "master address").map_err(error)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: `host` and the outputs live across the call; the socket is open and handed over.
        call(|message| unsafe {
            ffi::spc_store_tcp(
                host.as_ptr(),
                tcp.master_port,
                listening.unwrap_or(-1),
                milliseconds(rendezvous.timeout),
                &raw mut handle,
                message,
            )
        })
        .map_err(|failure| match (listening, failure.kind) {
            (None, ffi::FailureKind::Timeout) => rendezvous.missing(vec![0]),
            _ => error(failure),
        })?;
        // Looked up only now: the store has waited until the master's name was known.
        let mut store = Self::new(handle, rendezvous, Ipv4Addr::UNSPECIFIED.into())?;
        let address = tcp.local_address();
        store.local_address = address.map_err(|reason| rendezvous.failed("resolve", reason))?;
        Ok(store)
    }

    /// The same store under a prefix of the keys.
    pub(crate) fn prefixed(&self, prefix: &str) -> Result<Self> {
        let error = |failure| self.rendezvous.error("store", failure);
        let c_prefix = ffi::c_string(prefix, "prefix").map_err(error)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the handle is live, and the text and the outputs live across the call.
        call(|message| unsafe {
            ffi::spc_store_prefixed(
                self.handle.as_ptr(),
                c_prefix.as_ptr(),
                &raw mut handle,
                message,
            )
        })
        .map_err(error)?;
        Self::new(handle, &self.rendezvous, self.local_address)
    }

    fn meet(&self) -> Result<()> {
        let (rank, world_size) = (self.rank(), self.world_size());
        if self.add(&arrival(rank), 1)? != 1 {
            let reason = format!(
                "another process has arrived as rank {rank}; give each process a RANK of its own"
            );
            return Err(CollectiveError::invalid(
                &format!("rendezvous at {}", self.rendezvous.place),
                reason,
            ));
        }
        let timeout = Duration::from_millis(milliseconds(self.rendezvous.timeout).unsigned_abs());
        let deadline = Instant::now() + timeout;
        for other in 0..world_size {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            if let Err(failure) = self.wait(&arrival(other), left) {
                let missing: Vec<usize> = (0..world_size)
                    .filter(|rank| matches!(self.has(&arrival(*rank)), Ok(false)))
                    .collect();
                // None is missing when the store itself is gone.
                return Err(if missing.is_empty() {
                    self.rendezvous.error("rendezvous", failure)
                } else {
                    self.rendezvous.missing(missing)
                });
            }
        }
        Ok(())
    }

    /// # Errors
    /// `Rendezvous`: the store cannot be reached.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let c_key = self.key(key)?;
        // SAFETY: the handle is live, and the key and value live across the call.
        call(|message| unsafe {
            ffi::spc_store_set(
                self.handle.as_ptr(),
                c_key.as_ptr(),
                value.as_ptr(),
                value.len(),
                message,
            )
        })
        .map_err(|failure| {
            self.rendezvous
                .error(&format!("store: set {key:?}"), failure)
        })
    }

    /// Waits until the key is set, for the rendezvous' timeout.
    ///
    /// # Errors
    /// `Rendezvous`: it was not set in time, or the store cannot be reached.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let c_key = self.key(key)?;
        let mut value = std::ptr::null_mut();
        let mut length = 0;
        // SAFETY: the handle is live, and the key and outputs live across the call.
        call(|message| unsafe {
            ffi::spc_store_get(
                self.handle.as_ptr(),
                c_key.as_ptr(),
                &raw mut value,
                &raw mut length,
                message,
            )
        })
        .map_err(|failure| {
            self.rendezvous
                .error(&format!("store: get {key:?}"), failure)
        })?;
        // SAFETY: a call that succeeds leaves `length` bytes at `value`, which are ours to free.
        unsafe {
            let bytes = std::slice::from_raw_parts(value, length).to_vec();
            ffi::spc_free(value.cast());
            Ok(bytes)
        }
    }

    /// Adds to the integer at the key (0 where there is none) and returns the sum.
    ///
    /// # Errors
    /// `Rendezvous`: the store cannot be reached, or the key holds no integer.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let c_key = self.key(key)?;
        let mut sum = 0;
        // SAFETY: the handle is live, and the key and output live across the call.
        call(|message| unsafe {
            ffi::spc_store_add(
                self.handle.as_ptr(),
                c_key.as_ptr(),
                amount,
                &raw mut sum,
                message,
            )
        })
        .map_err(|failure| {
            self.rendezvous
                .error(&format!("store: add to {key:?}"), failure)
        })?;
        Ok(sum)
    }

    fn wait(&self, key: &str, timeout: Duration) -> std::result::Result<(), Failure> {
        let c_key = ffi::c_string(key, "key")?;
        // SAFETY: the handle is live, and the key lives across the call.
        call(|message| unsafe {
            ffi::spc_store_wait(
                self.handle.as_ptr(),
                c_key.as_ptr(),
                milliseconds(timeout),
                message,
            )
        })
    }

    fn has(&self, key: &str) -> std::result::Result<bool, Failure> {
        let c_key = ffi::c_string(key, "key")?;
        let mut present = 0;
        // SAFETY: the handle is live, and the key and output live across the call.
        call(|message| unsafe {
            ffi::spc_store_has(
                self.handle.as_ptr(),
                c_key.as_ptr(),
                &raw mut present,
                message,
            )
        })?;
        Ok(present != 0)
    }

    fn key(&self, key: &str) -> Result<CString> {
        ffi::c_string(key, "key").map_err(|failure| self.rendezvous.error("store", failure))
    }

    pub fn rank(&self) -> usize {
        self.rendezvous.rank
    }

    pub fn world_size(&self) -> usize {
        self.rendezvous.world_size
    }

    pub(crate) fn local_address(&self) -> IpAddr {
        self.local_address
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::Store {
        self.handle.as_ptr()
    }

    /// The number of the next process group, from 0.
    pub(crate) fn next_group(&self) -> u64 {
        self.groups.replace(self.groups.get() + 1)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used again.
        unsafe { ffi::spc_store_free(self.handle.as_ptr()) }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("rendezvous", &self.rendezvous)
            .finish_non_exhaustive()
    }
}

fn arrival(rank: usize) -> String {
    format!("arrived/{rank}")
}
