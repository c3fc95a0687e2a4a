// The updates of the optimizers, each one call for all parameters, behind the C interface.
#include "boundary.h"

#include <ATen/core/grad_mode.h>

namespace {

using Tensors = std::vector<at::Tensor>;

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

void check_parameters(const Tensors& parameters) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    TORCH_CHECK(
        parameters[i].device() == parameters[0].device(), "parameter ", i, " is on ", parameters[i].device(),
        " but the first is on ", parameters[0].device());
    TORCH_CHECK(
        parameters[i].scalar_type() == parameters[0].scalar_type(), "parameter ", i, " is ", parameters[i].scalar_type(),
        " but the first is ", parameters[0].scalar_type(), ": call once for each type");
  }
}

// `lists`: the gradients, and what the optimizer keeps for each element of a parameter.
void check_state(const Tensors& parameters, std::initializer_list<const Tensors*> lists) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    for (const auto* list : lists) {
      TORCH_CHECK(
          same_layout((*list)[i], parameters[i]), "a gradient or moment of parameter ", i, " differs from it in shape ",
          parameters[i].sizes(), ", strides ", parameters[i].strides(), ", type or device: make moments with zeros_like");
    }
  }
}

void check_steps(const Tensors& parameters, const Tensors& steps) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    TORCH_CHECK(
        steps[i].device() == parameters[i].device(), "the step of parameter ", i, " is on ", steps[i].device(), " but it on ",
        parameters[i].device());
    TORCH_CHECK(
        steps[i].numel() == 1 && steps[i].scalar_type() == at::kFloat, "the step of parameter ", i, " must be one f32");
  }
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
    check_parameters(parameter_list);
    check_steps(parameter_list, step_list);
    check_state(parameter_list, {&gradient_list, &exp_avg_list, &exp_avg_sq_list});
    at::_foreach_add_(step_list, 1);
    at::_fused_adamw_(
        parameter_list, gradient_list, exp_avg_list, exp_avg_sq_list, /*max_exp_avg_sqs=*/{}, step_list, lr, beta1, beta2,
        weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

SpcStatus spc_fused_sgd(
    const SpcTensor* parameters, const SpcTensor* gradients, const SpcTensor* momentum_buffers, size_t count, double lr,
    double momentum, double weight_decay, int32_t nesterov, int32_t first, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto parameter_list = spc::tensors(parameters, count);
    const auto gradient_list = spc::tensors(gradients, count);
    const auto buffer_list = momentum != 0 ? spc::tensors(momentum_buffers, count) : Tensors();
    check_parameters(parameter_list);
    check_state(parameter_list, {&gradient_list});
    if (momentum != 0) {
      check_state(parameter_list, {&buffer_list});
    }
    at::_fused_sgd_(
        parameter_list, gradient_list, buffer_list, weight_decay, momentum, lr, /*dampening=*/0.0, nesterov != 0,
        /*maximize=*/false, first != 0);
  });
}

SpcStatus spc_lamb(
    const SpcTensor* parameters, const SpcTensor* gradients, const SpcTensor* exp_avg, const SpcTensor* exp_avg_sq,
    const SpcTensor* steps, size_t count, double lr, double beta1, double beta2, double eps, double weight_decay,
    int32_t always_adapt, char** message) {
  return spc::guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto parameter_list = spc::tensors(parameters, count);
    const auto gradient_list = spc::tensors(gradients, count);
    const auto exp_avg_list = spc::tensors(exp_avg, count);
    const auto exp_avg_sq_list = spc::tensors(exp_avg_sq, count);
    const auto step_list = spc::tensors(steps, count);
    check_parameters(parameter_list);
    check_steps(parameter_list, step_list);
    check_state(parameter_list, {&gradient_list, &exp_avg_list, &exp_avg_sq_list});

    at::_foreach_add_(step_list, 1);
    at::_foreach_lerp_(exp_avg_list, gradient_list, 1 - beta1);
    at::_foreach_mul_(exp_avg_sq_list, beta2);
    at::_foreach_addcmul_(exp_avg_sq_list, gradient_list, gradient_list, 1 - beta2);

    // In f64: in f32, 1 - beta2^t would lose half of its digits in the first updates. All of it stays on the device.
    Tensors flat_steps;
    for (const auto& step : step_list) {
      flat_steps.push_back(step.view(-1));
    }
    const auto t = at::cat(flat_steps).to(at::kDouble);
    const auto correction1 = (1 - at::pow(beta1, t)).unbind();
    const auto correction2 = (1 - at::pow(beta2, t)).sqrt().unbind();
    auto updates = at::_foreach_div(exp_avg_list, correction1);
    {
      const auto denominators = at::_foreach_sqrt(exp_avg_sq_list);
      at::_foreach_div_(denominators, correction2);
      at::_foreach_add_(denominators, eps);
      at::_foreach_div_(updates, denominators);
    }
    if (weight_decay != 0) {
      at::_foreach_add_(updates, parameter_list, weight_decay);
    }
    if (weight_decay != 0 || always_adapt != 0) {
      const auto weights = at::stack(at::_foreach_norm(parameter_list));
      const auto norms = at::stack(at::_foreach_norm(updates));
      const auto both = (weights > 0).logical_and_(norms > 0);
      at::_foreach_mul_(updates, at::where(both, weights / norms, 1.0).unbind());
    }
    at::_foreach_add_(parameter_list, updates, -lr);
  });
}
