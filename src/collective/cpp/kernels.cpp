// libtorch's multi-tensor kernels that tch does not expose, behind the C interface.
#include "boundary.h"

#include <ATen/core/grad_mode.h>

namespace {

at::Tensor norm_of_norms(const std::vector<at::Tensor>& gradients) {
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients, 2)));
}

// The fused kernels walk raw memory: the tensors of one parameter must lie in the same order. The stride of a dimension of
// size one says nothing.
bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type() || a.device() != b.device()) {
    return false;
  }
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) {
      return false;
    }
  }
  return a.is_non_overlapping_and_dense();
}

} // namespace

SpcStatus spc_fused_adamw(
    const SpcTensor* parameters, const SpcTensor* gradients, const SpcTensor* exp_avg, const SpcTensor* exp_avg_sq,
    const SpcTensor* steps, size_t count, double lr, double beta1, double beta2, double eps, double weight_decay,
    char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto parameter_list = spc::tensors(parameters, count);
    const auto gradient_list = spc::tensors(gradients, count);
    const auto exp_avg_list = spc::tensors(exp_avg, count);
    const auto exp_avg_sq_list = spc::tensors(exp_avg_sq, count);
    const auto step_list = spc::tensors(steps, count);
    for (size_t i = 0; i < count; ++i) {
      const auto& parameter = parameter_list[i];
      for (const auto* other : {&parameter_list[0], &step_list[i]}) {
        TORCH_CHECK(
            other->device() == parameter.device(), "parameter ", i, " is on ", parameter.device(),
            " but its step or the first parameter is on ", other->device());
      }
      TORCH_CHECK(
          parameter.scalar_type() == parameter_list[0].scalar_type(), "parameter ", i, " is ", parameter.scalar_type(),
          " but the first is ", parameter_list[0].scalar_type(), ": call once for each type");
      TORCH_CHECK(
          step_list[i].numel() == 1 && step_list[i].scalar_type() == at::kFloat, "the step of parameter ", i,
          " must be one f32");
      for (const auto* state : {&gradient_list[i], &exp_avg_list[i], &exp_avg_sq_list[i]}) {
        TORCH_CHECK(
            same_layout(*state, parameter), "a gradient or moment of parameter ", i, " differs from it in shape ",
            parameter.sizes(), ", strides ", parameter.strides(), ", type or device: make moments with zeros_like");
      }
    }
    at::_foreach_add_(step_list, 1);
    at::_fused_adamw_(
        parameter_list, gradient_list, exp_avg_list, exp_avg_sq_list, /*max_exp_avg_sqs=*/{}, step_list, lr, beta1, beta2,
        weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

SpcStatus spc_grad_norm(const SpcTensor* gradients, size_t count, SpcTensor* norm, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    *norm = new at::Tensor(norm_of_norms(spc::tensors(gradients, count)));
  });
}

// torch.nn.utils.clip_grad_norm_, operation by operation: the factor stays on the device and is applied even when it is 1.
SpcStatus spc_clip_grad_norm(const SpcTensor* gradients, size_t count, double max_norm, double* norm, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto list = spc::tensors(gradients, count);
    const auto total = norm_of_norms(list);
    const auto factor = at::clamp_max(at::reciprocal(total + 1e-6) * max_norm, 1.0);
    at::_foreach_mul_(list, factor);
    *norm = total.item<double>();
  });
}

SpcStatus spc_foreach_mul(const SpcTensor* tensors, size_t count, double factor, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    at::_foreach_mul_(spc::tensors(tensors, count), factor);
  });
}

SpcStatus spc_zero_grad(const SpcTensor* parameters, size_t count, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients;
    for (size_t i = 0; i < count; ++i) {
      const auto& gradient = spc::tensor(parameters[i]).grad();
      if (gradient.defined()) {
        gradients.push_back(gradient);
      }
    }
    if (!gradients.empty()) {
      // In place and without detaching, because a gradient may be a view of the reducer's bucket.
      at::_foreach_zero_(gradients);
    }
  });
}

SpcStatus spc_grad(SpcTensor parameter, SpcTensor* gradient, char** message) {
  return spc::guarded(message, [&] {
    const auto& found = spc::tensor(parameter).grad();
    *gradient = found.defined() ? new at::Tensor(found) : nullptr;
  });
}

SpcStatus spc_channels_last(const SpcTensor* parameters, size_t count, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    for (auto& parameter : spc::tensors(parameters, count)) {
      if (parameter.dim() == 4) {
        parameter.set_data(parameter.detach().contiguous(at::MemoryFormat::ChannelsLast));
      }
    }
  });
}

SpcStatus spc_amp_unscale(
    const SpcTensor* gradients, size_t count, SpcTensor found_inf, SpcTensor inverse_scale, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    at::_amp_foreach_non_finite_check_and_unscale_(
        spc::tensors(gradients, count), spc::tensor(found_inf), spc::tensor(inverse_scale));
  });
}

SpcStatus spc_amp_update_scale(
    SpcTensor scale, SpcTensor growth_tracker, SpcTensor found_inf, double growth_factor, double backoff_factor,
    int64_t growth_interval, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    at::_amp_update_scale_(
        spc::tensor(scale), spc::tensor(growth_tracker), spc::tensor(found_inf), growth_factor, backoff_factor,
        growth_interval);
  });
}
