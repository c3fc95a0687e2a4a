// Stand-in for NVIDIA's cusolver_common.h: libtorch's headers only pass these types through. Last on the include path, so the real header is
// taken where it is installed.
#pragma once

enum cusolverStatus_t : int;
