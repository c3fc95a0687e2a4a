// What the C++ files share: the exception boundary and the conversion of tensor lists.
#pragma once

#include "spinectl_collective.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/exception.h>

#include <cstring>
#include <new>
#include <vector>

struct SpcStore {
  c10::intrusive_ptr<c10d::Store> store;
};

struct SpcGroup {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::vector<c10::intrusive_ptr<c10d::Backend>> backends;
};

namespace spc {

inline SpcStatus report(char** message, SpcStatus status, const char* text) noexcept {
  *message = strdup(text);
  return status;
}

// Runs `body` and turns whatever it throws into a status and a message. Gloo's errors arrive as std::runtime_error.
template <class Body>
SpcStatus guarded(char** message, Body&& body) noexcept {
  try {
    body();
    return SPC_OK;
  } catch (const c10d::TimeoutError& error) {
    return report(message, SPC_TIMEOUT, error.what_without_backtrace());
  } catch (const c10::DistError& error) {
    return report(message, SPC_NETWORK, error.what_without_backtrace());
  } catch (const c10::OutOfMemoryError& error) {
    return report(message, SPC_OUT_OF_MEMORY, error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return report(message, SPC_FAILED, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return report(message, SPC_OUT_OF_MEMORY, "the host is out of memory");
  } catch (const std::exception& error) {
    return report(message, SPC_FAILED, error.what());
  } catch (...) {
    return report(message, SPC_FAILED, "an exception that is not a std::exception");
  }
}

inline at::Tensor& tensor(SpcTensor handle) {
  return *static_cast<at::Tensor*>(handle);
}

inline std::vector<at::Tensor> tensors(const SpcTensor* handles, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    list.push_back(tensor(handles[i]));
  }
  return list;
}

} // namespace spc
