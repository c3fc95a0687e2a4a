// c10d's Reducer, the engine of DistributedDataParallel, behind the C interface.
#include "boundary.h"

#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace {

// ~Reducer and ~Logger may throw, and a shared_ptr that lets that out ends the process.
template <class T>
std::shared_ptr<T> shared_quietly(T* object) {
  return std::shared_ptr<T>(object, [](T* last) {
    try {
      delete last;
    } catch (...) {
    }
  });
}

} // namespace

struct SpcReducer {
  std::shared_ptr<c10d::Reducer> reducer;
  // The reducer keeps only a weak reference to it.
  std::shared_ptr<c10d::Logger> logger;
};

SpcStatus spc_reducer_new(
    const SpcTensor* parameters, size_t count, SpcGroup* group, int64_t bucket_bytes, int64_t first_bucket_bytes,
    int32_t find_unused, int32_t gradient_as_bucket_view, SpcReducer** reducer, char** message) {
  return spc::guarded(message, [&] {
    const auto list = spc::tensors(parameters, count);
    for (size_t i = 0; i < count; ++i) {
      TORCH_CHECK(
          list[i].defined() && list[i].requires_grad() && list[i].is_leaf(), "parameter ", i,
          " is not a leaf tensor that requires a gradient: pass the trainable parameters only");
    }
    c10d::verify_params_across_processes(group->group, list, {});

    const std::vector<bool> expect_sparse(count, false);
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
        list, {static_cast<size_t>(first_bucket_bytes), static_cast<size_t>(bucket_bytes)}, expect_sparse));
    // Gradients become ready in about the reverse of the order of the parameters.
    std::reverse(buckets.begin(), buckets.end());

    auto made = std::make_unique<SpcReducer>();
    made->reducer = shared_quietly(new c10d::Reducer(
        list, std::move(buckets), group->group, expect_sparse, bucket_bytes, find_unused != 0, gradient_as_bucket_view != 0,
        /*param_names=*/{}, first_bucket_bytes, /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/{}));
    made->logger = shared_quietly(new c10d::Logger(made->reducer));
    made->reducer->set_logger(made->logger);
    const int device = list.front().is_cuda() ? list.front().get_device() : -1;
    made->logger->set_construction_data_and_log(
        "spinectl", device < 0 ? std::vector<int>{} : std::vector<int>{device}, device, /*broadcast_buffers=*/false,
        /*has_sync_bn=*/false, /*static_graph=*/false);
    *reducer = made.release();
  });
}

SpcStatus spc_reducer_prepare_for_forward(SpcReducer* reducer, char** message) {
  return spc::guarded(message, [&] {
    reducer->logger->set_runtime_stats_and_log();
    reducer->reducer->prepare_for_forward();
    reducer->reducer->rebuild_buckets();
  });
}

SpcStatus spc_reducer_prepare_for_backward(
    SpcReducer* reducer, const SpcTensor* outputs, size_t count, char** message) {
  return spc::guarded(message, [&] { reducer->reducer->prepare_for_backward(spc::tensors(outputs, count)); });
}

SpcStatus spc_reducer_check_finished(SpcReducer* reducer, char** message) {
  return spc::guarded(message, [&] { reducer->reducer->check_finalized(); });
}

void spc_reducer_free(SpcReducer* reducer) {
  char* ignored = nullptr;
  spc::guarded(&ignored, [&] { delete reducer; });
  std::free(ignored);
}

SpcStatus spc_backward(SpcTensor loss, char** message) {
  return spc::guarded(message, [&] { spc::tensor(loss).backward(); });
}
