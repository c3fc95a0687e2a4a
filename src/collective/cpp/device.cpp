// Where libtorch is, the CUDA device that a thread works on, and memory that it fetches from.
#include "boundary.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/distributed/c10d/comm.hpp>

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <string>

SpcStatus spc_libtorch_folder(char** folder, char** message) {
  return spc::guarded(message, [&] {
    Dl_info info;
    TORCH_CHECK(
        dladdr(reinterpret_cast<void*>(&c10d::broadcast_coalesced), &info) != 0 && info.dli_fname != nullptr,
        "the loader does not know which file libtorch_cpu was loaded from");
    const std::string file(info.dli_fname);
    const auto slash = file.rfind('/');
    *folder = strdup((slash == std::string::npos ? "." : file.substr(0, slash)).c_str());
    TORCH_CHECK(*folder != nullptr, "the host is out of memory");
  });
}

// The GPU half of libtorch registers how it switches devices when it is loaded, so nothing of CUDA is needed here.
SpcStatus spc_cuda_set_device(uint64_t index, uint64_t* found, char** message) {
  return spc::guarded(message, [&] {
    TORCH_CHECK(c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA), "libtorch's GPU half is not loaded");
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    *found = static_cast<uint64_t>(std::max<c10::DeviceIndex>(cuda.deviceCount(), 0));
    if (index < *found) {
      cuda.setDevice(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)));
    }
  });
}

SpcStatus spc_pinned_bytes(const uint8_t* bytes, uint64_t count, SpcTensor* tensor, char** message) {
  return spc::guarded(message, [&] {
    const auto options = at::TensorOptions().dtype(at::kByte).pinned_memory(true);
    auto pinned = at::empty({static_cast<int64_t>(count)}, options);
    std::memcpy(pinned.data_ptr(), bytes, count);
    *tensor = new at::Tensor(std::move(pinned));
  });
}

SpcStatus spc_cuda_peak_memory(uint64_t* bytes, char** message) {
  return spc::guarded(message, [&] {
    TORCH_CHECK(c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA), "libtorch's GPU half is not loaded");
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(cuda.getDevice().index());
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *bytes = static_cast<uint64_t>(stats.allocated_bytes[all].peak);
  });
}
