// Stand-in for gloo's header, which the libtorch packages do not ship: see gloo/context.h.
#pragma once

namespace gloo::transport {
class Device;
} // namespace gloo::transport
