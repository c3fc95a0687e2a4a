// Stand-in for NVIDIA's cusolverDn.h: libtorch's headers only pass these types through. Last on the include path, so the real header is
// taken where it is installed.
#pragma once

typedef struct cusolverDnContext* cusolverDnHandle_t;
