// Stand-in for NVIDIA's cublas_v2.h: libtorch's headers only pass these types through. Last on the include path, so the real header is
// taken where it is installed.
#pragma once

typedef struct cublasContext* cublasHandle_t;
enum cublasStatus_t : int;
