// libtorch's automatic mixed precision, behind the C interface.
#include "boundary.h"

#include <ATen/autocast_mode.h>

#include <cstdlib>

namespace autocast = at::autocast;

SpcStatus spc_autocast_enter(int32_t cuda, int32_t dtype, SpcAutocast* before, char** message) {
  return spc::guarded(message, [&] {
    const auto device = cuda != 0 ? at::kCUDA : at::kCPU;
    const SpcAutocast found{
        cuda, autocast::is_autocast_enabled(device) ? 1 : 0, static_cast<int32_t>(autocast::get_autocast_dtype(device))};
    autocast::set_autocast_enabled(device, dtype >= 0);
    if (dtype >= 0) {
      autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(dtype));
    }
    autocast::increment_nesting();
    *before = found;
  });
}

void spc_autocast_exit(const SpcAutocast* before) {
  char* ignored = nullptr;
  spc::guarded(&ignored, [&] {
    // The cast weights hold memory and stand for values that the next update changes.
    if (autocast::decrement_nesting() == 0) {
      autocast::clear_cache();
    }
    const auto device = before->cuda != 0 ? at::kCUDA : at::kCPU;
    autocast::set_autocast_enabled(device, before->enabled != 0);
    autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(before->dtype));
  });
  std::free(ignored);
}
