// libspinectl_nccl.so: NCCL's process group, in a library of its own, because it needs libtorch_cuda and libnccl at load time
// and a machine without a GPU has neither. Opened at run time; spinectl_collective.h says what its entry point does.
#include "boundary.h"

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

extern "C" __attribute__((visibility("default"))) SpcStatus spc_nccl_backend(
    void* store, int32_t rank, int32_t world_size, int64_t timeout_ms, const char* name, void** backend, char** message) {
  return spc::guarded(message, [&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    options->group_name = name;
    auto shared = c10::intrusive_ptr<c10d::Store>::reclaim_copy(static_cast<c10d::Store*>(store));
    c10::intrusive_ptr<c10d::Backend> made =
        c10::make_intrusive<c10d::ProcessGroupNCCL>(std::move(shared), rank, world_size, std::move(options));
    *backend = made.release();
  });
}
