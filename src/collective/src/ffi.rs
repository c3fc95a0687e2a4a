//! The C interface of `cpp/spinectl_collective.h`, and the way from its statuses to a `Failure`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use tch::Tensor;
use torch_sys::C_tensor;

#[repr(C)]
pub(crate) struct Store {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Group {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Reducer {
    _opaque: [u8; 0],
}

/// What `spc_autocast_enter` found.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Autocast {
    cuda: i32,
    enabled: i32,
    dtype: i32,
}

/// A closure that C++ calls, and frees once.
#[repr(C)]
pub(crate) struct Block {
    pub(crate) closure: *mut c_void,
    pub(crate) run:
        unsafe extern "C" fn(*mut c_void, *mut C_tensor, i32, *mut *mut C_tensor, Message) -> i32,
    pub(crate) at_home: unsafe extern "C" fn(*mut c_void, Work, *mut c_void) -> i32,
    pub(crate) free: unsafe extern "C" fn(*mut c_void),
}

pub(crate) type Work = unsafe extern "C" fn(*mut c_void);

pub(crate) type Message = *mut *mut c_char;
pub(crate) type Tensors = *const *mut C_tensor;
/// The entry point of `libspinectl_nccl.so`.
pub(crate) type NcclBackend = unsafe extern "C" fn(
    *mut c_void,
    i32,
    i32,
    i64,
    *const c_char,
    *mut *mut c_void,
    Message,
) -> i32;

unsafe extern "C" {
    pub(crate) fn spc_free(block: *mut c_void);

    pub(crate) fn spc_store_in_process(
        timeout_ms: i64,
        store: *mut *mut Store,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_file(
        path: *const c_char,
        timeout_ms: i64,
        store: *mut *mut Store,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_tcp(
        host: *const c_char,
        port: u16,
        listen_fd: c_int,
        timeout_ms: i64,
        store: *mut *mut Store,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_prefixed(
        store: *const Store,
        prefix: *const c_char,
        prefixed: *mut *mut Store,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_set(
        store: *mut Store,
        key: *const c_char,
        value: *const u8,
        length: usize,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_get(
        store: *mut Store,
        key: *const c_char,
        value: *mut *mut u8,
        length: *mut usize,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_add(
        store: *mut Store,
        key: *const c_char,
        amount: i64,
        sum: *mut i64,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_wait(
        store: *mut Store,
        key: *const c_char,
        timeout_ms: i64,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_has(
        store: *mut Store,
        key: *const c_char,
        present: *mut i32,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_store_free(store: *mut Store);

    pub(crate) fn spc_group_new(
        store: *const Store,
        rank: i32,
        world_size: i32,
        name: *const c_char,
        gloo_host: *const c_char,
        timeout_ms: i64,
        nccl: Option<NcclBackend>,
        group: *mut *mut Group,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_group_all_reduce(
        group: *mut Group,
        tensor: *mut C_tensor,
        op: i32,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_group_broadcast(
        group: *mut Group,
        tensors: Tensors,
        count: usize,
        root: i32,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_group_all_gather(
        group: *mut Group,
        tensor: *mut C_tensor,
        outputs: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_group_gather(
        group: *mut Group,
        tensor: *mut C_tensor,
        root: i32,
        outputs: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_group_barrier(group: *mut Group, message: Message) -> i32;
    pub(crate) fn spc_group_sequence(group: *const Group) -> u64;
    pub(crate) fn spc_group_free(group: *mut Group);

    pub(crate) fn spc_reducer_new(
        parameters: Tensors,
        count: usize,
        group: *mut Group,
        bucket_bytes: i64,
        first_bucket_bytes: i64,
        find_unused: i32,
        gradient_as_bucket_view: i32,
        reducer: *mut *mut Reducer,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_reducer_prepare_for_forward(reducer: *mut Reducer, message: Message) -> i32;
    pub(crate) fn spc_reducer_prepare_for_backward(
        reducer: *mut Reducer,
        outputs: Tensors,
        count: usize,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_reducer_check_finished(reducer: *mut Reducer, message: Message) -> i32;
    pub(crate) fn spc_reducer_free(reducer: *mut Reducer);
    pub(crate) fn spc_backward(loss: *mut C_tensor, message: Message) -> i32;

    pub(crate) fn spc_fused_adamw(
        parameters: Tensors,
        gradients: Tensors,
        exp_avg: Tensors,
        exp_avg_sq: Tensors,
        steps: Tensors,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_fused_sgd(
        parameters: Tensors,
        gradients: Tensors,
        momentum_buffers: Tensors,
        count: usize,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: i32,
        first: i32,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_lamb(
        parameters: Tensors,
        gradients: Tensors,
        exp_avg: Tensors,
        exp_avg_sq: Tensors,
        steps: Tensors,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
        always_adapt: i32,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_grad_norm(
        gradients: Tensors,
        count: usize,
        norm: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_clip_grad_norm(
        gradients: Tensors,
        count: usize,
        max_norm: f64,
        norm: *mut f64,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_foreach_mul(
        tensors: Tensors,
        count: usize,
        factor: f64,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_foreach_lerp(
        tensors: Tensors,
        ends: Tensors,
        count: usize,
        weight: f64,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_zero_grad(parameters: Tensors, count: usize, message: Message) -> i32;
    pub(crate) fn spc_free_grad(parameters: Tensors, count: usize, message: Message) -> i32;
    pub(crate) fn spc_grad(
        parameter: *mut C_tensor,
        gradient: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_channels_last(parameters: Tensors, count: usize, message: Message) -> i32;
    pub(crate) fn spc_to_channels_last(
        tensor: *mut C_tensor,
        output: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_is_channels_last(
        tensor: *mut C_tensor,
        yes: *mut i32,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_amp_unscale(
        gradients: Tensors,
        count: usize,
        found_inf: *mut C_tensor,
        inverse_scale: *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_amp_update_scale(
        scale: *mut C_tensor,
        growth_tracker: *mut C_tensor,
        found_inf: *mut C_tensor,
        growth_factor: f64,
        backoff_factor: f64,
        growth_interval: i64,
        message: Message,
    ) -> i32;

    pub(crate) fn spc_autocast_enter(
        cuda: i32,
        dtype: i32,
        before: *mut Autocast,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_autocast_exit(before: *const Autocast);

    pub(crate) fn spc_trace_signature(
        names: *const *const c_char,
        inputs: usize,
        outputs: *const *mut C_tensor,
        count: usize,
        message: Message,
    ) -> i32;

    pub(crate) fn spc_recompute(
        x: *mut C_tensor,
        block: *const Block,
        output: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_sync_batch_norm(
        group: *mut Group,
        x: *mut C_tensor,
        weight: *mut C_tensor,
        bias: *mut C_tensor,
        running_mean: *mut C_tensor,
        running_var: *mut C_tensor,
        momentum: f64,
        eps: f64,
        output: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_backward_beside(
        loss: *mut C_tensor,
        serve: Work,
        close: Work,
        context: *mut c_void,
        message: Message,
    ) -> i32;

    pub(crate) fn spc_cuda_set_device(index: u64, found: *mut u64, message: Message) -> i32;
    pub(crate) fn spc_pinned_bytes(
        bytes: *const u8,
        count: u64,
        tensor: *mut *mut C_tensor,
        message: Message,
    ) -> i32;
    pub(crate) fn spc_cuda_peak_memory(bytes: *mut u64, message: Message) -> i32;
    pub(crate) fn spc_libtorch_folder(folder: *mut *mut c_char, message: Message) -> i32;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Timeout,
    Network,
    OutOfMemory,
    Other,
}

/// What a call into C++ threw.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) text: String,
}

/// Runs one call of the C interface; `body` passes on the place for the message.
pub(crate) fn call(body: impl FnOnce(Message) -> i32) -> Result<(), Failure> {
    let mut message: *mut c_char = std::ptr::null_mut();
    let kind = match body(&raw mut message) {
        0 => return Ok(()),
        2 => FailureKind::Timeout,
        3 => FailureKind::Network,
        4 => FailureKind::OutOfMemory,
        _ => FailureKind::Other,
    };
    // SAFETY: a failed call leaves null or a text of its own making there.
    let text = unsafe { take_text(message) };
    Err(Failure {
        kind,
        text: without_source_location(text.trim()).to_owned(),
    })
}

/// # Safety
/// `text` is null or a C string made by the shim, not used again.
pub(crate) unsafe fn take_text(text: *mut c_char) -> String {
    if text.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: as the caller promises.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        spc_free(text.cast());
        owned
    }
}

/// Gloo begins its messages with the place in its own source: `[/.../pair.cc:547] Connection closed by peer ...`.
fn without_source_location(text: &str) -> &str {
    match text
        .strip_prefix("[/")
        .and_then(|rest| rest.split_once("] "))
    {
        Some((_, message)) => message,
        None => text,
    }
}

pub(crate) fn c_string(text: &str, what: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure {
        kind: FailureKind::Other,
        text: format!("the {what} holds a zero byte: {text:?}"),
    })
}

/// The handle of a tensor that libtorch is about to read or write. c10d and the kernels write through shared storage, so
/// `&Tensor` is what tch itself takes for this.
pub(crate) fn handle(tensor: &Tensor) -> *mut C_tensor {
    tensor.as_ptr().cast_mut()
}

pub(crate) fn handles(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(handle).collect()
}

/// # Safety
/// Each pointer is a tensor handle that nobody else owns.
pub(crate) unsafe fn adopt(handles: Vec<*mut C_tensor>) -> Vec<Tensor> {
    // SAFETY: as the caller promises.
    handles
        .into_iter()
        .map(|handle| unsafe { Tensor::from_ptr(handle) })
        .collect()
}
