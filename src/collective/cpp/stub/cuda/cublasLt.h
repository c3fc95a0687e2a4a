// Stand-in for NVIDIA's cublasLt.h: libtorch's headers only pass these types through. Last on the include path, so the real header is
// taken where it is installed.
#pragma once

typedef struct cublasLtContext* cublasLtHandle_t;
