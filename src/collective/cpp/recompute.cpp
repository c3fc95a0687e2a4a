// Gradient checkpointing: an autograd function that runs a block of the caller's once without a graph, and again with one in
// the backward pass.
#include "boundary.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

// The state of the random generators that a block on a device draws from.
class Random {
 public:
  static Random now(c10::Device device) {
    Random random;
    random.add(at::detail::getDefaultCPUGenerator());
    if (!device.is_cpu()) {
      random.add(at::globalContext().defaultGenerator(device));
    }
    return random;
  }

  // The same generators, as they are now.
  Random again() const {
    Random random;
    for (const auto& [generator, state] : entries_) {
      random.add(generator);
    }
    return random;
  }

  void restore() {
    for (auto& [generator, state] : entries_) {
      std::lock_guard<std::mutex> lock(generator.mutex());
      generator.set_state(state);
    }
  }

 private:
  void add(at::Generator generator) {
    std::lock_guard<std::mutex> lock(generator.mutex());
    auto state = generator.get_state();
    entries_.emplace_back(generator, std::move(state));
  }

  std::vector<std::pair<at::Generator, at::Tensor>> entries_;
};

// The autocast of this thread for CPU tensors and for those of a device.
class Precision {
 public:
  static Precision now(c10::DeviceType device) {
    Precision precision;
    precision.add(at::kCPU);
    if (device != at::kCPU) {
      precision.add(device);
    }
    precision.cache_ = at::autocast::is_autocast_cache_enabled();
    return precision;
  }

  // The same types of device, as they are now.
  Precision again() const {
    return now(entries_.back().device);
  }

  // A block's casts of parameters are not kept: they would hold memory until a region ends, and in the backward pass none ends
  // before the next update changes what they stand for.
  void without_cache() {
    cache_ = false;
  }

  void restore() const {
    for (const auto& entry : entries_) {
      at::autocast::set_autocast_enabled(entry.device, entry.enabled);
      at::autocast::set_autocast_dtype(entry.device, entry.dtype);
    }
    at::autocast::set_autocast_cache_enabled(cache_);
  }

 private:
  struct Entry {
    c10::DeviceType device;
    bool enabled;
    at::ScalarType dtype;
  };

  void add(c10::DeviceType device) {
    entries_.push_back({device, at::autocast::is_autocast_enabled(device), at::autocast::get_autocast_dtype(device)});
  }

  std::vector<Entry> entries_;
  bool cache_ = true;
};

// Sets a Random or a Precision, and what was there before again at the end.
template <class State>
class Under {
 public:
  explicit Under(State state) : before_(state.again()) {
    state.restore();
  }
  Under(const Under&) = delete;
  Under& operator=(const Under&) = delete;
  ~Under() {
    try {
      before_.restore();
    } catch (...) {
      // Only a generator of another kind refuses a state, and this one is its own.
    }
  }

 private:
  State before_;
};

// The caller's block, and what surrounded its first run.
class Block : public torch::CustomClassHolder {
 public:
  Block(const SpcBlock& calls, c10::Device device)
      : random(Random::now(device)), precision(Precision::now(device.type())), calls_(calls) {
    precision.without_cache();
  }
  ~Block() override {
    calls_.free(calls_.closure);
  }

  at::Tensor run(const at::Tensor& x, bool first) const {
    SpcTensor output = nullptr;
    char* message = nullptr;
    const SpcStatus status = calls_.run(calls_.closure, const_cast<at::Tensor*>(&x), first ? 1 : 0, &output, &message);
    const std::unique_ptr<at::Tensor> y(static_cast<at::Tensor*>(output));
    const std::string text = message != nullptr ? message : "no reason given";
    std::free(message);
    TORCH_CHECK_WITH(OutOfMemoryError, status != SPC_OUT_OF_MEMORY, text);
    TORCH_CHECK(status == SPC_OK, text);
    TORCH_CHECK(y != nullptr && y->defined(), "the block made no tensor");
    return *y;
  }

  // Runs `work` on the thread that the block belongs to.
  template <class Work>
  void at_home(Work work) const {
    struct Task {
      Work& work;
      std::exception_ptr failure;
    } task{work, nullptr};
    const auto perform = [](void* context) {
      auto& task = *static_cast<Task*>(context);
      try {
        task.work();
      } catch (...) {
        task.failure = std::current_exception();
      }
    };
    TORCH_CHECK(
        calls_.at_home(calls_.closure, perform, &task) != 0,
        "a recomputed block belongs to another thread: run the backward pass on the thread that ran the forward pass, through "
        "this crate's backward");
    if (task.failure) {
      std::rethrow_exception(task.failure);
    }
  }

  const Random random;
  Precision precision;

 private:
  const SpcBlock calls_;
};

struct Recompute : torch::autograd::Function<Recompute> {
  // anchor: an empty tensor that requires a gradient. With it the function takes part in the graph also where x needs no
  // gradient, for the parameters that the block uses are unknown here.
  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& x, const at::Tensor& /*anchor*/, const c10::intrusive_ptr<Block>& block) {
    const auto input = x.detach();
    const auto version = input._version();
    const Under<Precision> precision(block->precision);
    const auto y = block->run(input, /*first=*/true);
    TORCH_CHECK(input._version() == version, "a recomputed block changes its input in place; let it work on a copy");
    ctx->save_for_backward({x});
    ctx->saved_data["block"] = at::IValue::make_capsule(block);
    return y.requires_grad() ? y.detach() : y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    TORCH_CHECK(
        torch::autograd::Engine::get_default_engine().is_checkpoint_valid(),
        "a recomputed block cannot give the gradients of chosen inputs: run a whole backward pass");
    TORCH_CHECK(!at::GradMode::is_enabled(), "a recomputed block has no second derivative");
    const auto block = c10::static_intrusive_pointer_cast<Block>(ctx->saved_data["block"].toCapsule());
    const auto saved = ctx->get_saved_variables()[0];
    const auto x = saved.detach().requires_grad_(saved.requires_grad());
    const auto stream = current_stream(x.device());
    at::Tensor y;
    block->at_home([&] {
      const c10::StreamGuard on_stream(stream);
      const Under<Random> random(block->random);
      const Under<Precision> precision(block->precision);
      const at::AutoGradMode recording(true);
      y = block->run(x, /*first=*/false);
    });
    if (y.requires_grad()) {
      torch::autograd::backward({y}, {gradients[0]});
    }
    return {x.grad(), at::Tensor(), at::Tensor()};
  }
};

} // namespace

SpcStatus spc_recompute(SpcTensor x, const SpcBlock* block, SpcTensor* output, char** message) {
  // Whoever the block belongs to, it is freed once.
  auto owned = std::unique_ptr<void, void (*)(void*)>(block->closure, block->free);
  return spc::guarded(message, [&] {
    const auto& input = spc::tensor(x);
    const auto held = c10::make_intrusive<Block>(*block, input.device());
    static_cast<void>(owned.release());
    if (!at::GradMode::is_enabled()) {
      *output = new at::Tensor(held->run(input, /*first=*/true));
      return;
    }
    const auto anchor = at::empty({0}, input.options().dtype(at::kFloat)).requires_grad_();
    *output = new at::Tensor(Recompute::apply(input, anchor, held));
  });
}

SpcStatus spc_backward_beside(
    SpcTensor loss, void (*serve)(void*), void (*close)(void*), void* context, char** message) {
  return spc::guarded(message, [&] {
    const auto& output = spc::tensor(loss);
    const at::ThreadLocalState state;
    const auto stream = current_stream(output.device());
    std::exception_ptr failure;
    std::thread engine([&] {
      try {
        const at::ThreadLocalStateGuard as_here(state);
        const c10::StreamGuard on_stream(stream);
        output.backward();
      } catch (...) {
        failure = std::current_exception();
      }
      close(context);
    });
    serve(context);
    engine.join();
    if (failure) {
      std::rethrow_exception(failure);
    }
  });
}
