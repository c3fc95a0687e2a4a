// Batch normalisation over all ranks' batches, as an autograd function.
#include "boundary.h"

#include <ATen/OpMathType.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

struct Settings {
  Group group;
  // Both or neither.
  std::optional<at::Tensor> running_mean;
  std::optional<at::Tensor> running_var;
  double momentum;
  double eps;
};

// Statistics over all ranks: (C,) each, and the values per channel that each rank brought, (ranks,) i32.
struct Statistics {
  at::Tensor mean;
  at::Tensor invstd;
  at::Tensor counts;
};

// The rows of all ranks, in order of rank.
at::Tensor gather(const Group& group, const at::Tensor& row) {
  std::vector<at::Tensor> inputs{row};
  std::vector<std::vector<at::Tensor>> gathered(1);
  for (int rank = 0; rank < group->getSize(); ++rank) {
    gathered[0].push_back(at::empty_like(row));
  }
  group->allgather(gathered, inputs)->wait();
  return at::stack(gathered[0]);
}

void sum_over_ranks(const Group& group, at::Tensor& values) {
  std::vector<at::Tensor> buffers{values};
  group->allreduce(buffers)->wait();
  values = buffers[0];
}

// (C,) to (1, C, 1, ...), beside x.
at::Tensor along_channels(const at::Tensor& values, const at::Tensor& x) {
  std::vector<int64_t> shape(x.dim(), 1);
  shape[1] = -1;
  return values.view(shape);
}

// What libtorch has for PyTorch's own SyncBatchNorm is for CUDA only.
Statistics cuda_statistics(const at::Tensor& x, const Settings& settings) {
  const auto channels = x.size(1);
  const auto [mean, invstd] = at::batch_norm_stats(x, settings.eps);
  const auto count = at::full({1}, x.numel() / channels, mean.options());
  const auto all = gather(settings.group, at::cat({mean, invstd, count}));
  const auto counts = all.select(1, 2 * channels).contiguous();
  const auto [all_mean, all_invstd] = at::batch_norm_gather_stats_with_counts(
      x, all.narrow(1, 0, channels).contiguous(), all.narrow(1, channels, channels).contiguous(), settings.running_mean,
      settings.running_var, settings.momentum, settings.eps, counts);
  return {all_mean, all_invstd, counts.to(at::kInt)};
}

// Each rank's mean and variance, joined by Chan, Golub and LeVeque's formula: squares of the values themselves never occur.
Statistics cpu_statistics(const at::Tensor& x, const Settings& settings) {
  const auto channels = x.size(1);
  const auto wide = x.to(at::toOpMathType(x.scalar_type()));
  const auto [own_mean, own_var] = at::batch_norm_update_stats(wide, {}, {}, /*momentum=*/0.0);
  const auto count = at::full({1}, x.numel() / channels, own_mean.options());
  const auto all = gather(settings.group, at::cat({own_mean, own_var, count}).to(at::kDouble));
  const auto means = all.narrow(1, 0, channels);
  const auto vars = all.narrow(1, channels, channels);
  const auto counts = all.narrow(1, 2 * channels, 1);
  const auto total = counts.sum();
  const auto mean = (means * counts).sum(0) / total;
  const auto var = ((vars + (means - mean).square()) * counts).sum(0) / total;
  if (settings.running_mean.has_value()) {
    const auto unbiased = var * (total / (total - 1));
    settings.running_mean->mul_(1 - settings.momentum).add_(mean, settings.momentum);
    settings.running_var->mul_(1 - settings.momentum).add_(unbiased, settings.momentum);
  }
  const auto type = wide.scalar_type();
  return {mean.to(type), (var + settings.eps).rsqrt().to(type), counts.view(-1).to(at::kInt)};
}

struct SyncBatchNorm : torch::autograd::Function<SyncBatchNorm> {
  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
      const Settings& settings) {
    const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
    const auto x = input.contiguous(input.suggest_memory_format());
    const auto statistics = x.is_cuda() ? cuda_statistics(x, settings) : cpu_statistics(x, settings);
    const auto& [mean, invstd, counts] = statistics;
    ctx->save_for_backward({x, weight, mean, invstd, counts});
    ctx->saved_data["group"] = at::IValue::make_capsule(settings.group);
    if (x.is_cuda()) {
      return at::batch_norm_elemt(x, weight, bias, mean, invstd, settings.eps);
    }
    const auto scale = invstd * weight;
    return ((x - along_channels(mean, x)) * along_channels(scale, x))
        .add_(along_channels(bias, x))
        .to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
    TORCH_CHECK(!at::GradMode::is_enabled(), "batch normalisation over ranks has no second derivative");
    const auto group = c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(ctx->saved_data["group"].toCapsule());
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &mean = saved[2], &invstd = saved[3], &counts = saved[4];
    const auto dy = gradients[0].contiguous(x.suggest_memory_format());
    const auto channels = x.size(1);

    // Over this rank's values: sums of dy and of dy (x - mean).
    at::Tensor sum_dy, sum_dy_xmu, weight_gradient, bias_gradient;
    if (x.is_cuda()) {
      std::tie(sum_dy, sum_dy_xmu, weight_gradient, bias_gradient) =
          at::batch_norm_backward_reduce(dy, x, mean, invstd, weight, true, true, true);
    } else {
      std::tie(std::ignore, weight_gradient, bias_gradient) = at::native_batch_norm_backward(
          dy, x, weight, {}, {}, mean, invstd, /*train=*/true, /*eps=*/0.0, {false, true, true});
      sum_dy = bias_gradient;
      sum_dy_xmu = weight_gradient / invstd;
    }
    at::Tensor input_gradient;
    if (ctx->needs_input_grad(0)) {
      auto sums = at::cat({sum_dy, sum_dy_xmu});
      sum_over_ranks(group, sums);
      sum_dy = sums.narrow(0, 0, channels);
      sum_dy_xmu = sums.narrow(0, channels, channels);
      if (x.is_cuda()) {
        input_gradient =
            at::batch_norm_backward_elemt(dy, x, mean, invstd, weight.to(mean.scalar_type()), sum_dy, sum_dy_xmu, counts);
      } else {
        const auto total = counts.sum();
        const auto slope = invstd.square() * sum_dy_xmu / total;
        input_gradient = (x - along_channels(mean, x))
                             .mul_(along_channels(slope, x))
                             .add_(along_channels(sum_dy / total, x))
                             .neg_()
                             .add_(dy)
                             .mul_(along_channels(invstd * weight, x))
                             .to(x.scalar_type());
      }
    }
    return {input_gradient, weight_gradient, bias_gradient, at::Tensor()};
  }
};

} // namespace

SpcStatus spc_sync_batch_norm(
    SpcGroup* group, SpcTensor x, SpcTensor weight, SpcTensor bias, SpcTensor running_mean, SpcTensor running_var,
    double momentum, double eps, SpcTensor* output, char** message) {
  return spc::guarded(message, [&] {
    const auto& input = spc::tensor(x);
    TORCH_CHECK(input.dim() >= 2, "x has the shape ", input.sizes(), "; it must be (batch, channels, ...)");
    TORCH_CHECK(input.is_floating_point(), "x is of type ", input.scalar_type());
    TORCH_CHECK(input.numel() > 0, "x is empty: ", input.sizes());
    Settings settings{group->group, std::nullopt, std::nullopt, momentum, eps};
    if (running_mean != nullptr) {
      settings.running_mean = spc::tensor(running_mean);
      settings.running_var = spc::tensor(running_var);
    }
    for (const auto& [name, values] : {
             std::pair<const char*, std::optional<at::Tensor>>{"weight", spc::tensor(weight)},
             {"bias", spc::tensor(bias)},
             {"running_mean", settings.running_mean},
             {"running_var", settings.running_var},
         }) {
      TORCH_CHECK(
          !values.has_value() || (values->dim() == 1 && values->size(0) == input.size(1)), name, " has the shape ",
          values->sizes(), ", but x has ", input.size(1), " channels");
    }
    TORCH_CHECK(
        group->group->getSize() > 1 || input.numel() > input.size(1),
        "there is one value per channel, which has no variance: use a larger batch");
    *output = new at::Tensor(SyncBatchNorm::apply(input, spc::tensor(weight), spc::tensor(bias), settings));
  });
}
