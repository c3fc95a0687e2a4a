// The C interface over libtorch's c10d and the kernels that tch does not expose.
//
// Every function catches every exception and returns an SpcStatus. When it is not SPC_OK, *message holds a text made with
// malloc (free it with spc_free) and no other output is written. Tensors are tch's: `at::Tensor*`. A tensor handed out is a
// new handle that the caller owns. Handles (store, group, reducer) are freed once, by their own function, which never fails.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t SpcStatus;
enum { SPC_OK = 0, SPC_FAILED = 1, SPC_TIMEOUT = 2, SPC_NETWORK = 3, SPC_OUT_OF_MEMORY = 4 };

typedef struct SpcStore SpcStore;
typedef struct SpcGroup SpcGroup;
typedef struct SpcReducer SpcReducer;
typedef void* SpcTensor;

void spc_free(void* block);

// --- store ---------------------------------------------------------------------------------------------------------------

// A store inside this process, for a world of one rank.
SpcStatus spc_store_in_process(int64_t timeout_ms, SpcStore** store, char** message);
// A store in a file that all ranks have open, each by a path of its own.
SpcStatus spc_store_file(const char* path, int64_t timeout_ms, SpcStore** store, char** message);
// listen_fd: a listening socket to serve on (it becomes libtorch's), or -1 to be a client of host:port.
SpcStatus spc_store_tcp(const char* host, uint16_t port, int listen_fd, int64_t timeout_ms, SpcStore** store, char** message);
// The same store under a key prefix.
SpcStatus spc_store_prefixed(const SpcStore* store, const char* prefix, SpcStore** prefixed, char** message);
SpcStatus spc_store_set(SpcStore* store, const char* key, const uint8_t* value, size_t length, char** message);
// Waits for the key for the store's timeout. *value is made with malloc.
SpcStatus spc_store_get(SpcStore* store, const char* key, uint8_t** value, size_t* length, char** message);
SpcStatus spc_store_add(SpcStore* store, const char* key, int64_t amount, int64_t* sum, char** message);
SpcStatus spc_store_wait(SpcStore* store, const char* key, int64_t timeout_ms, char** message);
SpcStatus spc_store_has(SpcStore* store, const char* key, int32_t* present, char** message);
void spc_store_free(SpcStore* store);

// --- process group -------------------------------------------------------------------------------------------------------

// The entry point of libspinectl_nccl.so. `store` is a borrowed c10d::Store*; *backend becomes a c10d::Backend* whose one
// reference is the caller's.
typedef SpcStatus (*SpcNcclBackend)(
    void* store, int32_t rank, int32_t world_size, int64_t timeout_ms, const char* name, void** backend, char** message);

// Gloo for CPU tensors, listening at gloo_host; NCCL for CUDA tensors where `nccl` is given.
SpcStatus spc_group_new(
    const SpcStore* store, int32_t rank, int32_t world_size, const char* name, const char* gloo_host, int64_t timeout_ms,
    SpcNcclBackend nccl, SpcGroup** group, char** message);
// op: 0 sum, 1 mean, 2 minimum, 3 maximum.
SpcStatus spc_group_all_reduce(SpcGroup* group, SpcTensor tensor, int32_t op, char** message);
SpcStatus spc_group_broadcast(SpcGroup* group, const SpcTensor* tensors, size_t count, int32_t root, char** message);
// outputs: world_size handles, in order of rank.
SpcStatus spc_group_all_gather(SpcGroup* group, SpcTensor tensor, SpcTensor* outputs, char** message);
// outputs: world_size handles at the root, not written elsewhere.
SpcStatus spc_group_gather(SpcGroup* group, SpcTensor tensor, int32_t root, SpcTensor* outputs, char** message);
SpcStatus spc_group_barrier(SpcGroup* group, char** message);
// Collectives issued so far on all of the group's backends.
uint64_t spc_group_sequence(const SpcGroup* group);
void spc_group_free(SpcGroup* group);

// --- reducer -------------------------------------------------------------------------------------------------------------

SpcStatus spc_reducer_new(
    const SpcTensor* parameters, size_t count, SpcGroup* group, int64_t bucket_bytes, int64_t first_bucket_bytes,
    int32_t find_unused, int32_t gradient_as_bucket_view, SpcReducer** reducer, char** message);
SpcStatus spc_reducer_prepare_for_forward(SpcReducer* reducer, char** message);
SpcStatus spc_reducer_prepare_for_backward(SpcReducer* reducer, const SpcTensor* outputs, size_t count, char** message);
SpcStatus spc_reducer_check_finished(SpcReducer* reducer, char** message);
void spc_reducer_free(SpcReducer* reducer);
SpcStatus spc_backward(SpcTensor loss, char** message);

// --- kernels -------------------------------------------------------------------------------------------------------------

SpcStatus spc_fused_adamw(
    const SpcTensor* parameters, const SpcTensor* gradients, const SpcTensor* exp_avg, const SpcTensor* exp_avg_sq,
    const SpcTensor* steps, size_t count, double lr, double beta1, double beta2, double eps, double weight_decay,
    char** message);
// momentum_buffers is not read where momentum is 0. first: the buffers hold nothing yet.
SpcStatus spc_fused_sgd(
    const SpcTensor* parameters, const SpcTensor* gradients, const SpcTensor* momentum_buffers, size_t count, double lr,
    double momentum, double weight_decay, int32_t nesterov, int32_t first, char** message);
SpcStatus spc_lamb(
    const SpcTensor* parameters, const SpcTensor* gradients, const SpcTensor* exp_avg, const SpcTensor* exp_avg_sq,
    const SpcTensor* steps, size_t count, double lr, double beta1, double beta2, double eps, double weight_decay,
    int32_t always_adapt, char** message);
SpcStatus spc_grad_norm(const SpcTensor* gradients, size_t count, SpcTensor* norm, char** message);
SpcStatus spc_clip_grad_norm(const SpcTensor* gradients, size_t count, double max_norm, double* norm, char** message);
SpcStatus spc_foreach_mul(const SpcTensor* tensors, size_t count, double factor, char** message);
SpcStatus spc_foreach_lerp(
    const SpcTensor* tensors, const SpcTensor* ends, size_t count, double weight, char** message);
SpcStatus spc_zero_grad(const SpcTensor* parameters, size_t count, char** message);
SpcStatus spc_free_grad(const SpcTensor* parameters, size_t count, char** message);
// *gradient is null where the parameter has none.
SpcStatus spc_grad(SpcTensor parameter, SpcTensor* gradient, char** message);
SpcStatus spc_channels_last(const SpcTensor* parameters, size_t count, char** message);
SpcStatus spc_to_channels_last(SpcTensor tensor, SpcTensor* output, char** message);
SpcStatus spc_is_channels_last(SpcTensor tensor, int32_t* yes, char** message);
SpcStatus spc_amp_unscale(
    const SpcTensor* gradients, size_t count, SpcTensor found_inf, SpcTensor inverse_scale, char** message);
SpcStatus spc_amp_update_scale(
    SpcTensor scale, SpcTensor growth_tracker, SpcTensor found_inf, double growth_factor, double backoff_factor,
    int64_t growth_interval, char** message);

// --- autocast ------------------------------------------------------------------------------------------------------------

// What a thread's autocast was before spc_autocast_enter changed it.
typedef struct SpcAutocast {
  int32_t cuda;
  int32_t enabled;
  int32_t dtype;
} SpcAutocast;

// Autocast of this thread for CPU (cuda 0) or CUDA (1) tensors, to the c10::ScalarType `dtype`; off where it is negative.
SpcStatus spc_autocast_enter(int32_t cuda, int32_t dtype, SpcAutocast* before, char** message);
// Once for each spc_autocast_enter that succeeded, on its thread, the last one first.
void spc_autocast_exit(const SpcAutocast* before);

// --- tracing -------------------------------------------------------------------------------------------------------------

// Gives the trace that this thread is recording its inputs' names and its outputs: one tensor, or a tuple of `count`.
SpcStatus spc_trace_signature(
    const char* const* names, size_t inputs, const SpcTensor* outputs, size_t count, char** message);

// --- autograd ------------------------------------------------------------------------------------------------------------

// A part of a network that belongs to the thread that made it.
typedef struct SpcBlock {
  void* closure;
  // Runs it on that thread. `x` is borrowed; *y becomes the caller's. *message is made with malloc.
  SpcStatus (*run)(void* closure, SpcTensor x, int32_t first, SpcTensor* y, char** message);
  // Performs work(context) on that thread before it returns, and returns 0 where that cannot be. `work` never throws.
  int32_t (*at_home)(void* closure, void (*work)(void*), void* context);
  // Called once, on any thread.
  void (*free)(void* closure);
} SpcBlock;

// y = block(x), without keeping what the block computes in between: the backward pass runs it again. The closure is the
// callee's, whatever the outcome.
SpcStatus spc_recompute(SpcTensor x, const SpcBlock* block, SpcTensor* output, char** message);
// Batch normalisation of x, (B, C, ...), by the statistics of all ranks' x. The running statistics may both be null; otherwise
// they move. The gradients of weight and bias are of this rank's x alone.
SpcStatus spc_sync_batch_norm(
    SpcGroup* group, SpcTensor x, SpcTensor weight, SpcTensor bias, SpcTensor running_mean, SpcTensor running_var,
    double momentum, double eps, SpcTensor* output, char** message);
// spc_backward on a thread of its own, in this thread's state. Meanwhile this thread is in serve(context), which is to return
// once close(context) was called, on the other thread. Neither throws; where the thread cannot be made, neither is called.
SpcStatus spc_backward_beside(
    SpcTensor loss, void (*serve)(void*), void (*close)(void*), void* context, char** message);

// --- where libtorch is, and on which device ------------------------------------------------------------------------------

// The folder that libtorch_cpu.so was loaded from, made with malloc.
SpcStatus spc_libtorch_folder(char** folder, char** message);
// Makes the CUDA device `index` this thread's current one, where there are more than `index`; *found says how many there are.
SpcStatus spc_cuda_set_device(uint64_t index, uint64_t* found, char** message);
// A copy of the bytes in pinned memory, (count,) u8. libtorch does not use that memory again before copies out of it are done.
SpcStatus spc_pinned_bytes(const uint8_t* bytes, uint64_t count, SpcTensor* tensor, char** message);
// The most memory of this thread's CUDA device that libtorch's tensors ever held at once, bytes.
SpcStatus spc_cuda_peak_memory(uint64_t* bytes, char** message);

#ifdef __cplusplus
}
#endif
