// c10d's stores and process groups behind the C interface.
#include "boundary.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

#include <cstdlib>

using std::chrono::milliseconds;

// ProcessGroupGloo is laid out here with stand-ins for gloo's types and built by libtorch with the real ones. These are the
// sizes that libtorch 2.11's own code allocates, so a stand-in that changes a layout does not compile.
static_assert(sizeof(c10d::ProcessGroupGloo::Options) == 176);
static_assert(sizeof(c10d::ProcessGroupGloo) == 488);

namespace {

char* copy(const void* bytes, size_t length) {
  auto* block = static_cast<char*>(std::malloc(length + 1));
  if (block == nullptr) {
    throw std::bad_alloc();
  }
  std::memcpy(block, bytes, length);
  block[length] = '\0';
  return block;
}

void finish(const c10::intrusive_ptr<c10d::Work>& work) {
  // Gloo blocks here until done; NCCL makes the current stream wait.
  work->wait();
}

// c10d sends the memory that a tensor spans, whatever its strides are: ranks must send the same layout. Autograd is left out.
at::Tensor payload(const at::Tensor& tensor) {
  return tensor.detach().contiguous();
}

std::vector<at::Tensor> like(const at::Tensor& tensor, int count) {
  std::vector<at::Tensor> list;
  for (int i = 0; i < count; ++i) {
    list.push_back(at::empty_like(tensor));
  }
  return list;
}

void hand_out(std::vector<at::Tensor>& list, SpcTensor* outputs) {
  for (size_t i = 0; i < list.size(); ++i) {
    outputs[i] = new at::Tensor(std::move(list[i]));
  }
}

} // namespace

void spc_free(void* block) {
  std::free(block);
}

SpcStatus spc_store_in_process(int64_t timeout_ms, SpcStore** store, char** message) {
  return spc::guarded(message, [&] {
    auto inner = c10::make_intrusive<c10d::HashStore>();
    inner->setTimeout(milliseconds(timeout_ms));
    *store = new SpcStore{std::move(inner)};
  });
}

SpcStatus spc_store_file(const char* path, int64_t timeout_ms, SpcStore** store, char** message) {
  return spc::guarded(message, [&] {
    // With a number of workers the last of them would remove the file, which is not ours.
    auto inner = c10::make_intrusive<c10d::FileStore>(path, -1);
    inner->setTimeout(milliseconds(timeout_ms));
    *store = new SpcStore{std::move(inner)};
  });
}

SpcStatus spc_store_tcp(
    const char* host, uint16_t port, int listen_fd, int64_t timeout_ms, SpcStore** store, char** message) {
  return spc::guarded(message, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listen_fd >= 0;
    // The count of arrivals that TCPStore offers cannot say who is missing; the caller counts by name.
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    if (listen_fd >= 0) {
      options.masterListenFd = listen_fd;
    }
    *store = new SpcStore{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

SpcStatus spc_store_prefixed(const SpcStore* store, const char* prefix, SpcStore** prefixed, char** message) {
  return spc::guarded(message, [&] {
    *prefixed = new SpcStore{c10::make_intrusive<c10d::PrefixStore>(prefix, store->store)};
  });
}

SpcStatus spc_store_set(SpcStore* store, const char* key, const uint8_t* value, size_t length, char** message) {
  return spc::guarded(message, [&] { store->store->set(key, std::vector<uint8_t>(value, value + length)); });
}

SpcStatus spc_store_get(SpcStore* store, const char* key, uint8_t** value, size_t* length, char** message) {
  return spc::guarded(message, [&] {
    const auto bytes = store->store->get(key);
    *value = reinterpret_cast<uint8_t*>(copy(bytes.data(), bytes.size()));
    *length = bytes.size();
  });
}

SpcStatus spc_store_add(SpcStore* store, const char* key, int64_t amount, int64_t* sum, char** message) {
  return spc::guarded(message, [&] { *sum = store->store->add(key, amount); });
}

SpcStatus spc_store_wait(SpcStore* store, const char* key, int64_t timeout_ms, char** message) {
  return spc::guarded(message, [&] { store->store->wait({key}, milliseconds(timeout_ms)); });
}

SpcStatus spc_store_has(SpcStore* store, const char* key, int32_t* present, char** message) {
  return spc::guarded(message, [&] { *present = store->store->check({key}) ? 1 : 0; });
}

void spc_store_free(SpcStore* store) {
  char* ignored = nullptr;
  spc::guarded(&ignored, [&] { delete store; });
  std::free(ignored);
}

SpcStatus spc_group_new(
    const SpcStore* store, int32_t rank, int32_t world_size, const char* name, const char* gloo_host, int64_t timeout_ms,
    SpcNcclBackend nccl, SpcGroup** group, char** message) {
  using c10d::ProcessGroup;
  char* nccl_message = nullptr;
  SpcStatus nccl_status = SPC_OK;
  const SpcStatus status = spc::guarded(message, [&] {
    auto made = std::make_unique<SpcGroup>();
    made->group = c10::make_intrusive<ProcessGroup>(store->store, rank, world_size);
    made->group->setDefaultBackend(nccl != nullptr ? ProcessGroup::NCCL : ProcessGroup::GLOO);

    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(gloo_host));
    c10::intrusive_ptr<c10d::Backend> gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", store->store), rank, world_size, std::move(options));
    made->group->setBackend(c10::DeviceType::CPU, ProcessGroup::GLOO, gloo);
    made->backends.push_back(std::move(gloo));

    if (nccl != nullptr) {
      auto nccl_store = c10::make_intrusive<c10d::PrefixStore>("nccl", store->store);
      void* raw = nullptr;
      nccl_status = nccl(nccl_store.get(), rank, world_size, timeout_ms, name, &raw, &nccl_message);
      TORCH_CHECK(nccl_status == SPC_OK, nccl_message != nullptr ? nccl_message : "no reason given");
      auto backend = c10::intrusive_ptr<c10d::Backend>::reclaim(static_cast<c10d::Backend*>(raw));
      made->group->setBackend(c10::DeviceType::CUDA, ProcessGroup::NCCL, backend);
      made->backends.push_back(std::move(backend));
    }

    made->group->setSequenceNumberForGroup();
    made->group->setGroupName(name);
    *group = made.release();
  });
  std::free(nccl_message);
  return nccl_status != SPC_OK ? nccl_status : status;
}

SpcStatus spc_group_all_reduce(SpcGroup* group, SpcTensor tensor, int32_t op, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto target = spc::tensor(tensor).detach();
    std::vector<at::Tensor> buffers{payload(target)};
    c10d::AllreduceOptions options;
    // Gloo has no mean, so it is a sum and a division on both backends.
    options.reduceOp = op == 2 ? c10d::ReduceOp::MIN : op == 3 ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    finish(group->group->allreduce(buffers, options));
    if (op == 1) {
      buffers[0].div_(group->group->getSize());
    }
    if (!buffers[0].is_alias_of(target)) {
      target.copy_(buffers[0]);
    }
  });
}

SpcStatus spc_group_broadcast(SpcGroup* group, const SpcTensor* tensors, size_t count, int32_t root, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> targets;
    std::vector<at::Tensor> buffers;
    for (size_t i = 0; i < count; ++i) {
      targets.push_back(spc::tensor(tensors[i]).detach());
      buffers.push_back(payload(targets.back()));
    }
    // The size at which DistributedDataParallel coalesces a module's state.
    constexpr size_t kBufferBytes = 250 * 1024 * 1024;
    c10d::broadcast_coalesced(group->group, buffers, kBufferBytes, root);
    for (size_t i = 0; i < count; ++i) {
      if (!buffers[i].is_alias_of(targets[i])) {
        targets[i].copy_(buffers[i]);
      }
    }
  });
}

SpcStatus spc_group_all_gather(SpcGroup* group, SpcTensor tensor, SpcTensor* outputs, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> inputs{payload(spc::tensor(tensor))};
    std::vector<std::vector<at::Tensor>> gathered{like(inputs[0], group->group->getSize())};
    finish(group->group->allgather(gathered, inputs));
    hand_out(gathered[0], outputs);
  });
}

SpcStatus spc_group_gather(SpcGroup* group, SpcTensor tensor, int32_t root, SpcTensor* outputs, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> inputs{payload(spc::tensor(tensor))};
    std::vector<std::vector<at::Tensor>> gathered;
    if (group->group->getRank() == root) {
      gathered.push_back(like(inputs[0], group->group->getSize()));
    }
    c10d::GatherOptions options;
    options.rootRank = root;
    finish(group->group->gather(gathered, inputs, options));
    if (!gathered.empty()) {
      hand_out(gathered[0], outputs);
    }
  });
}

SpcStatus spc_group_barrier(SpcGroup* group, char** message) {
  return spc::guarded(message, [&] {
    // Always Gloo's: it needs no CUDA device, and it holds the host, where NCCL's would only hold a stream.
    finish(group->backends.front()->barrier());
  });
}

uint64_t spc_group_sequence(const SpcGroup* group) {
  uint64_t sum = 0;
  char* ignored = nullptr;
  spc::guarded(&ignored, [&] {
    for (const auto& backend : group->backends) {
      sum += backend->getSequenceNumberForGroup();
    }
  });
  std::free(ignored);
  return sum;
}

void spc_group_free(SpcGroup* group) {
  char* ignored = nullptr;
  spc::guarded(&ignored, [&] {
    std::unique_ptr<SpcGroup> last(group);
    // NCCL wants its communicators closed before its threads are joined; Gloo has nothing to close.
    if (last->group->getBackendType() == c10d::ProcessGroup::NCCL) {
      last->backends.back()->shutdown();
    }
  });
  std::free(ignored);
}
