// Stand-ins for the gloo types that ProcessGroupGloo.hpp names. libtorch holds gloo itself, but its packages ship no gloo
// headers. The types appear there only behind pointers, so no layout of gloo's is repeated here and nothing of gloo is ever
// made, called or destroyed on this side. process_group.cpp asserts the sizes of the classes that hold such pointers.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  // Named by an inline function of ProcessGroupGloo that is never called here.
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = 0;
};
} // namespace transport

} // namespace gloo
