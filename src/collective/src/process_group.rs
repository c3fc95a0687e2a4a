//! Collectives: what all ranks of a group do together, in the same order.

use std::fmt;
use std::net::IpAddr;
use std::ptr::NonNull;
use std::time::Duration;

use tch::Tensor;

use crate::cuda;
use crate::error::{CollectiveError, Result};
use crate::ffi::{self, Failure, call};
use crate::peer::Peers;
use crate::rendezvous::milliseconds;
use crate::socket::{self, Socket};
use crate::store::Store;

/// Who moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Gloo over TCP, for CPU tensors.
    Gloo,
    /// NCCL for CUDA tensors, and Gloo beside it for CPU tensors and barriers. Call [`cuda::load`] first, and make the rank's
    /// device the current one.
    ///
    /// NCCL's work is queued on a stream: a collective returns before it is done, and a peer that is lost or late shows in
    /// NCCL's watchdog thread, which ends this process after the timeout, for a kernel that waits on a GPU cannot be recalled.
    Nccl,
}

/// How the tensors of all ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    Sum,
    /// The sum divided by the world size; for floating point.
    Mean,
    Min,
    Max,
}

/// The ranks of a job, connected. Every rank must call the same collectives in the same order with tensors of the same shape
/// and type; strides may differ.
///
/// After a `Timeout` or `PeerLost` the group is dead: drop it and, if all ranks agree to, build another over the same store.
/// Dropping a group closes it: drop a [`crate::Reducer`] over it first.
pub struct ProcessGroup {
    handle: NonNull<ffi::Group>,
    name: String,
    peers: Peers,
}

// SAFETY: c10d's process groups are not bound to a thread. They are not Sync: the order of collectives must be one.
unsafe impl Send for ProcessGroup {}

impl ProcessGroup {
    /// Connects the ranks of `store` to each other. Gloo listens only at the address that this machine has on the way to rank
    /// 0, which is loopback where all ranks are on one machine.
    ///
    /// Every rank builds the same groups in the same order. `timeout` holds for the connecting and for each collective.
    ///
    /// # Errors
    /// `Rendezvous` or `Timeout` when a rank does not come, `Invalid` when a rank's address is of no use to the others,
    /// `Stranger` when another process has taken a rank's place, `Library` when NCCL is asked for and not there.
    pub fn new(store: &Store, backend: Backend, name: &str, timeout: Duration) -> Result<Self> {
        let operation = format!("process group {name:?}");
        let site = format!("rank {}: {operation}", store.rank());
        if milliseconds(timeout) == 0 {
            let reason = format!("a timeout of {timeout:?}; give at least a millisecond");
            return Err(CollectiveError::invalid(&site, reason));
        }
        // A number in the prefix keeps a group that is built anew from the addresses of the one it replaces.
        let store = store.prefixed(&format!("group/{}/{name}", store.next_group()))?;
        let peers = Peers {
            rank: store.rank(),
            world_size: store.world_size(),
            timeout,
            addresses: Vec::new(),
        };
        let nccl = match backend {
            Backend::Gloo => None,
            Backend::Nccl => Some(cuda::nccl_backend()?),
        };
        check_addresses(&store, &site)?;
        let before = socket::open_sockets();

        let error = |failure: Failure| peers.error(&operation, failure);
        let c_name = ffi::c_string(name, "name").map_err(error)?;
        let host = ffi::c_string(&store.local_address().to_string(), "address").map_err(error)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the store is live, and the texts and outputs live across the call.
        call(|message| unsafe {
            ffi::spc_group_new(
                store.as_ptr(),
                // The rendezvous keeps both within an i32.
                peers.rank as i32,
                peers.world_size as i32,
                c_name.as_ptr(),
                host.as_ptr(),
                milliseconds(timeout),
                nccl,
                &raw mut handle,
                message,
            )
        })
        .map_err(error)?;
        let handle = NonNull::new(handle).ok_or_else(|| {
            CollectiveError::invalid(&site, "libtorch made none and reported no error")
        })?;
        let mut group = Self {
            handle,
            name: name.to_owned(),
            peers,
        };
        let sockets = exchange_sockets(&store)?;
        // Between machines addresses may be translated on the way, so that the ends need not agree.
        if store.local_address().is_loopback()
            && let Some(peer) = unmet(store.rank(), &sockets, &before)
        {
            return Err(CollectiveError::Stranger {
                rank: store.rank(),
                operation,
                peer,
            });
        }
        let local = |of: &Vec<Socket>| of.iter().map(|socket| socket.local).collect();
        group.peers.addresses = sockets.iter().map(local).collect();
        Ok(group)
    }

    pub fn rank(&self) -> usize {
        self.peers.rank
    }

    pub fn world_size(&self) -> usize {
        self.peers.world_size
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many collectives this rank has issued, those of a [`crate::Reducer`] included. Ranks that differ for long are out
    /// of step.
    pub fn sequence(&self) -> u64 {
        // SAFETY: the handle is live.
        unsafe { ffi::spc_group_sequence(self.handle.as_ptr()) }
    }

    /// Replaces the tensor, on every rank, by the sum, mean, minimum or maximum over the ranks.
    ///
    /// # Errors
    /// `Timeout` and `PeerLost` name the peer as far as it is known.
    pub fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<()> {
        let op = match op {
            ReduceOp::Sum => 0,
            ReduceOp::Mean => 1,
            ReduceOp::Min => 2,
            ReduceOp::Max => 3,
        };
        // SAFETY: the handles are live.
        self.collective("all_reduce", |message| unsafe {
            ffi::spc_group_all_reduce(self.handle.as_ptr(), ffi::handle(tensor), op, message)
        })
    }

    /// Replaces the tensor, on every rank, by that of rank `root`.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`]; `Invalid` for a root outside the world.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<()> {
        self.broadcast_all(std::slice::from_ref(tensor), root)
    }

    /// [`ProcessGroup::broadcast`] of many tensors in few messages: a model's parameters and buffers.
    ///
    /// # Errors
    /// As [`ProcessGroup::broadcast`].
    pub fn broadcast_all<T: std::borrow::Borrow<Tensor>>(
        &self,
        tensors: &[T],
        root: usize,
    ) -> Result<()> {
        let root = self.root("broadcast", root)?;
        let handles: Vec<_> = tensors
            .iter()
            .map(|tensor| ffi::handle(tensor.borrow()))
            .collect();
        // SAFETY: the handles are live.
        self.collective("broadcast", |message| unsafe {
            ffi::spc_group_broadcast(
                self.handle.as_ptr(),
                handles.as_ptr(),
                handles.len(),
                root,
                message,
            )
        })
    }

    /// The tensors of all ranks, in order of rank, on every rank.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let mut outputs = vec![std::ptr::null_mut(); self.world_size()];
        // SAFETY: the handles are live, and there is room for a handle for each rank.
        self.collective("all_gather", |message| unsafe {
            ffi::spc_group_all_gather(
                self.handle.as_ptr(),
                ffi::handle(tensor),
                outputs.as_mut_ptr(),
                message,
            )
        })?;
        // SAFETY: a call that succeeds fills in new handles.
        Ok(unsafe { ffi::adopt(outputs) })
    }

    /// The tensors of all ranks, in order of rank, at rank `root`; `None` elsewhere.
    ///
    /// # Errors
    /// As [`ProcessGroup::broadcast`].
    pub fn gather(&self, tensor: &Tensor, root: usize) -> Result<Option<Vec<Tensor>>> {
        let c_root = self.root("gather", root)?;
        let mut outputs = vec![std::ptr::null_mut(); self.world_size()];
        // SAFETY: the handles are live, and there is room for a handle for each rank.
        self.collective("gather", |message| unsafe {
            ffi::spc_group_gather(
                self.handle.as_ptr(),
                ffi::handle(tensor),
                c_root,
                outputs.as_mut_ptr(),
                message,
            )
        })?;
        // SAFETY: at the root, a call that succeeds fills in new handles.
        Ok((self.rank() == root).then(|| unsafe { ffi::adopt(outputs) }))
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// As [`ProcessGroup::all_reduce`].
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the handle is live.
        self.collective("barrier", |message| unsafe {
            ffi::spc_group_barrier(self.handle.as_ptr(), message)
        })
    }

    fn collective(&self, name: &str, body: impl FnOnce(ffi::Message) -> i32) -> Result<()> {
        let number = self.sequence() + 1;
        call(body).map_err(|failure| self.peers.error(&format!("{name} #{number}"), failure))
    }

    fn root(&self, operation: &str, root: usize) -> Result<i32> {
        match i32::try_from(root) {
            Ok(rank) if root < self.world_size() => Ok(rank),
            _ => {
                let reason = format!(
                    "root {root} is outside a world of {} ranks",
                    self.world_size()
                );
                Err(CollectiveError::invalid(
                    &format!("rank {}: {operation}", self.rank()),
                    reason,
                ))
            }
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::Group {
        self.handle.as_ptr()
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used again.
        unsafe { ffi::spc_group_free(self.handle.as_ptr()) }
    }
}

impl fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessGroup")
            .field("name", &self.name)
            .field("rank", &self.rank())
            .field("world_size", &self.world_size())
            .finish_non_exhaustive()
    }
}

/// Waits for all ranks and refuses a world in which some listen at loopback and others do not: the name of rank 0's machine
/// often resolves to loopback on that machine itself, where nobody else would find it.
fn check_addresses(store: &Store, site: &str) -> Result<()> {
    let key = |rank: usize| format!("address/{rank}");
    let own = store.local_address();
    store.set(&key(store.rank()), own.to_string().as_bytes())?;
    for other in 0..store.world_size() {
        let text = String::from_utf8_lossy(&store.get(&key(other))?).into_owned();
        let loopback = text.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if loopback != own.is_loopback() {
            let reason = format!(
                "rank {} listens at {own} and rank {other} at {text}, so they cannot reach each other; \
                 set MASTER_ADDR to the network address of rank 0's machine",
                store.rank()
            );
            return Err(CollectiveError::invalid(site, reason));
        }
    }
    Ok(())
}

/// Every rank's sockets, once all ranks are connected: a failure of Gloo's names no rank, but often an address.
fn exchange_sockets(store: &Store) -> Result<Vec<Vec<Socket>>> {
    let key = |rank: usize| format!("sockets/{rank}");
    let own: Vec<String> = socket::open_sockets()
        .iter()
        .map(Socket::to_string)
        .collect();
    store.set(&key(store.rank()), own.join(" ").as_bytes())?;
    (0..store.world_size())
        .map(|rank| {
            let text = String::from_utf8_lossy(&store.get(&key(rank))?).into_owned();
            Ok(text
                .split_whitespace()
                .filter_map(|socket| socket.parse().ok())
                .collect())
        })
        .collect()
}

/// The first rank to which no connection of `rank`'s leads, but for those that were there `before`. Both ends must tell of a
/// connection: whoever connects to a Gloo that waits for its peers, and guesses the small number that they begin with, is
/// taken for one of them.
fn unmet(rank: usize, sockets: &[Vec<Socket>], before: &[Socket]) -> Option<usize> {
    let own = sockets.get(rank).into_iter().flatten();
    let own: Vec<&Socket> = own.filter(|socket| !before.contains(socket)).collect();
    let met = |theirs: &Vec<Socket>| {
        let leads_there = |own: &&Socket| theirs.iter().any(|their| own.meets(their));
        own.iter().any(leads_there)
    };
    let mut others = sockets.iter().enumerate();
    others
        .find(|(peer, theirs)| *peer != rank && !met(theirs))
        .map(|(peer, _)| peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(texts: &[&str]) -> Vec<Socket> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_connection_counts_where_both_ends_tell_of_it() {
        let ours = sockets(&["127.0.0.1:10", "127.0.0.1:10=127.0.0.1:77"]);
        let first = [ours.clone(), sockets(&["127.0.0.1:77=127.0.0.1:10"])];
        assert_eq!(unmet(0, &first, &[]), None);
        assert_eq!(unmet(1, &first, &[]), None);
        // Who is at the other end is not rank 1, though rank 1 has that port for another connection.
        let other = [
            ours.clone(),
            sockets(&["127.0.0.1:77=127.0.0.1:11", "127.0.0.1:12"]),
        ];
        assert_eq!(unmet(0, &other, &[]), Some(1));
        // What was there before says nothing about this group.
        assert_eq!(unmet(0, &first, &ours), Some(1));
        assert_eq!(unmet(0, &[ours, Vec::new()], &[]), Some(1));
    }
}
