// libtorch's multi-tensor kernels that tch does not expose, behind the C interface.
#include "boundary.h"

#include <ATen/core/grad_mode.h>

namespace {

at::Tensor norm_of_norms(const std::vector<at::Tensor>& gradients) {
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients, 2)));
}

} // namespace

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

SpcStatus spc_foreach_lerp(
    const SpcTensor* tensors, const SpcTensor* ends, size_t count, double weight, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    at::_foreach_lerp_(spc::tensors(tensors, count), spc::tensors(ends, count), weight);
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

SpcStatus spc_free_grad(const SpcTensor* parameters, size_t count, char** message) {
  return spc::guarded(message, [&] {
    for (size_t i = 0; i < count; ++i) {
      spc::tensor(parameters[i]).mutable_grad().reset();
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
        // Not `contiguous`: a 1x1 kernel counts as being in both orders, and would keep the strides by which cuDNN and oneDNN
        // take the convolution for one of the other order.
        const auto kernel = parameter.detach();
        parameter.set_data(kernel.to(kernel.scalar_type(), false, true, at::MemoryFormat::ChannelsLast));
      }
    }
  });
}

SpcStatus spc_to_channels_last(SpcTensor tensor, SpcTensor* output, char** message) {
  return spc::guarded(message, [&] {
    const auto& from = spc::tensor(tensor);
    *output = new at::Tensor(from.dim() == 4 ? from.contiguous(at::MemoryFormat::ChannelsLast) : from);
  });
}

SpcStatus spc_is_channels_last(SpcTensor tensor, int32_t* yes, char** message) {
  return spc::guarded(
      message, [&] { *yes = spc::tensor(tensor).is_contiguous(at::MemoryFormat::ChannelsLast) ? 1 : 0; });
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
