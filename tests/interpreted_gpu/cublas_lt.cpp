#include "tests/interpreted_gpu/device.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cublasLt.h>
#include <map>
#include <vector>

// What cuda/runtime/cublas_lt.cpp calls of cuBLASLt, over interpreted devices:
// products by columns as BLAS defines them. It holds its caller to what the
// library says of its arguments and ends the process when it is called wrongly.
//
// Two algorithms are proposed: one by which a row's bits do not depend on the
// others, and one that divides sums into more parts the more columns of B
// (rows of ours) there are.

using namespace troupe::interpreted;

namespace {

void must(bool good, const char* what) {
  if (good)
    return;
  std::fprintf(stderr, "cuBLASLt is called wrongly: %s\n", what);
  std::abort();
}

template <class T>
T read(const void* from, std::size_t bytes, const char* what) {
  must(from != nullptr && bytes == sizeof(T), what);
  T out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

struct layout {
  std::uint32_t type;
  std::uint64_t rows, cols;
  std::int64_t leading;

  std::size_t element_bytes() const {
    return type == CUDA_R_32F ? 4 : 2;
  }
};

struct description {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t of_a = CUBLAS_OP_N, of_b = CUBLAS_OP_N;
};

/// What the library takes for granted where nothing is said.
constexpr std::uint32_t default_alignment = 256;

struct wishes {
  std::uint64_t workspace = 0;
  std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignment[4] = {default_alignment, default_alignment,
                                default_alignment, default_alignment};
};

enum class way : std::uint64_t { whole = 1, divided = 2 };

/// What an algorithm keeps in its 64 bytes.
struct algorithm {
  std::uint64_t magic = 0x74657374; // "test"
  way how = way::whole;
  std::uint32_t type = 0;
  std::uint32_t alignment[4] = {};
  std::uint64_t workspace = 0;
};
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t));

const layout& of(cublasLtMatrixLayout_t one) {
  must(one != nullptr, "a layout is missing");
  return *reinterpret_cast<const layout*>(one);
}

/// C = alpha op(A) op(B) + beta C, C has m rows and n columns.
struct problem {
  std::uint64_t m, n, k;
  layout a, b, c;
};

/// False: it is none that the library has (of those that we ask for).
bool describe(cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
              cublasLtMatrixLayout_t d, problem& out) {
  must(product != nullptr, "a description is missing");
  const auto& how = *reinterpret_cast<const description*>(product);
  must(c == d, "C and D are expected to be one");
  out.a = of(a);
  out.b = of(b);
  out.c = of(c);
  for (const auto* one : {&out.a, &out.b, &out.c})
    must(one->leading >= static_cast<std::int64_t>(one->rows),
         "a leading dimension is less than the rows");
  const bool turned_a = how.of_a == CUBLAS_OP_T;
  const bool turned_b = how.of_b == CUBLAS_OP_T;
  out.m = turned_a ? out.a.cols : out.a.rows;
  out.k = turned_a ? out.a.rows : out.a.cols;
  out.n = turned_b ? out.b.rows : out.b.cols;
  must((turned_b ? out.b.cols : out.b.rows) == out.k, "inner sizes differ");
  must(out.c.rows == out.m && out.c.cols == out.n, "C has another size");
  return how.compute == CUBLAS_COMPUTE_32F && how.scale == CUDA_R_32F &&
         out.a.type == out.b.type &&
         (out.a.type == CUDA_R_16BF || out.a.type == CUDA_R_16F) &&
         out.c.type == CUDA_R_32F && turned_a && !turned_b;
}

/// Whether an algorithm for such alignments suits leading dimensions.
bool suits(const algorithm& by, const problem& what) {
  const layout* all[] = {&what.a, &what.b, &what.c, &what.c};
  for (int i = 0; i < 4; ++i) {
    const auto bytes =
        static_cast<std::uint64_t>(all[i]->leading) * all[i]->element_bytes();
    if (bytes % std::min<std::uint32_t>(by.alignment[i], 16) != 0)
      return false;
  }
  return true;
}

float widened(std::uint32_t type, std::uint16_t bits) {
  if (type == CUDA_R_16BF) {
    const auto all = static_cast<std::uint32_t>(bits) << 16;
    float out;
    std::memcpy(&out, &all, sizeof out);
    return out;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = (bits >> 15) != 0 ? -1.0f : 1.0f;
  if (exponent == 31)
    return fraction != 0 ? NAN : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                               : std::ldexp(static_cast<float>(1024 + fraction),
                                            exponent - 25));
}

struct arguments {
  float alpha, beta;
  const std::uint16_t *a, *b;
  float* c;
  way how;
};

std::vector<float> widened_columns(const layout& of,
                                   const std::uint16_t* from) {
  std::vector<float> out(of.rows * of.cols);
  for (std::uint64_t col = 0; col < of.cols; ++col)
    for (std::uint64_t row = 0; row < of.rows; ++row)
      out[col * of.rows + row] = widened(
          of.type, from[col * static_cast<std::uint64_t>(of.leading) + row]);
  return out;
}

void compute(const problem& what, const arguments& with) {
  const auto a = widened_columns(what.a, with.a);
  const auto b = widened_columns(what.b, with.b);
  const std::uint64_t parts =
      with.how == way::whole ? 1 : 1 + std::min<std::uint64_t>(what.n / 16, 3);
  for (std::uint64_t col = 0; col < what.n; ++col)
    for (std::uint64_t row = 0; row < what.m; ++row) {
      const auto *x = a.data() + row * what.k, *y = b.data() + col * what.k;
      float sum = 0;
      for (std::uint64_t part = 0; part < parts; ++part) {
        float of_part = 0;
        for (auto i = what.k * part / parts; i < what.k * (part + 1) / parts;
             ++i)
          of_part += x[i] * y[i];
        sum += of_part;
      }
      auto& to = with.c[col * static_cast<std::uint64_t>(what.c.leading) + row];
      // What is there is not read where it does not count.
      to = with.alpha * sum + (with.beta == 0 ? 0.0f : with.beta * to);
    }
}

algorithm read_algorithm(const cublasLtMatmulAlgo_t* from) {
  must(from != nullptr, "an algorithm is missing");
  algorithm out;
  std::memcpy(static_cast<void*>(&out), from, sizeof out);
  return out;
}

bool is_ours(const algorithm& one) {
  return one.magic == algorithm{}.magic;
}

} // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED cublasStatus_t cublasLtCreate(cublasLtHandle_t* out) {
  *out = reinterpret_cast<cublasLtHandle_t>(new int{0});
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtDestroy(cublasLtHandle_t one) {
  delete reinterpret_cast<int*>(one);
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED std::size_t cublasLtGetVersion() {
  return 1; // of none that there is
}

EXPORTED cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* out,
                                                 cublasComputeType_t compute,
                                                 cudaDataType_t scale) {
  *out =
      reinterpret_cast<cublasLtMatmulDesc_t>(new description{compute, scale});
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t one) {
  delete reinterpret_cast<description*>(one);
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t one, cublasLtMatmulDescAttributes_t which,
    const void* value, std::size_t bytes) {
  auto& how = *reinterpret_cast<description*>(one);
  const auto turned = read<cublasOperation_t>(value, bytes, "an operation");
  if (which == CUBLASLT_MATMUL_DESC_TRANSA)
    how.of_a = turned;
  else if (which == CUBLASLT_MATMUL_DESC_TRANSB)
    how.of_b = turned;
  else
    return CUBLAS_STATUS_INVALID_VALUE;
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* out,
                                                   cudaDataType type,
                                                   std::uint64_t rows,
                                                   std::uint64_t cols,
                                                   std::int64_t leading) {
  *out = reinterpret_cast<cublasLtMatrixLayout_t>(
      new layout{static_cast<std::uint32_t>(type), rows, cols, leading});
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t
cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t one) {
  delete reinterpret_cast<layout*>(one);
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatrixLayoutSetAttribute(
    cublasLtMatrixLayout_t one, cublasLtMatrixLayoutAttribute_t which,
    const void* value, std::size_t bytes) {
  auto& what = *reinterpret_cast<layout*>(one);
  switch (which) {
  case CUBLASLT_MATRIX_LAYOUT_TYPE:
    what.type = read<std::uint32_t>(value, bytes, "a type");
    return CUBLAS_STATUS_SUCCESS;
  case CUBLASLT_MATRIX_LAYOUT_ROWS:
    what.rows = read<std::uint64_t>(value, bytes, "rows");
    return CUBLAS_STATUS_SUCCESS;
  case CUBLASLT_MATRIX_LAYOUT_COLS:
    what.cols = read<std::uint64_t>(value, bytes, "columns");
    return CUBLAS_STATUS_SUCCESS;
  case CUBLASLT_MATRIX_LAYOUT_LD:
    what.leading = read<std::int64_t>(value, bytes, "a leading dimension");
    return CUBLAS_STATUS_SUCCESS;
  default:
    return CUBLAS_STATUS_INVALID_VALUE;
  }
}

EXPORTED cublasStatus_t
cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* out) {
  *out = reinterpret_cast<cublasLtMatmulPreference_t>(new wishes);
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t
cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t one) {
  delete reinterpret_cast<wishes*>(one);
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t one, cublasLtMatmulPreferenceAttributes_t which,
    const void* value, std::size_t bytes) {
  auto& all = *reinterpret_cast<wishes*>(one);
  switch (which) {
  case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
    all.workspace = read<std::uint64_t>(value, bytes, "a workspace's size");
    return CUBLAS_STATUS_SUCCESS;
  case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
    all.schemes = read<std::uint32_t>(value, bytes, "reduction schemes");
    return CUBLAS_STATUS_SUCCESS;
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
  case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
    all.alignment[which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] =
        read<std::uint32_t>(value, bytes, "an alignment");
    return CUBLAS_STATUS_SUCCESS;
  default:
    return CUBLAS_STATUS_INVALID_VALUE;
  }
}

EXPORTED cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int most,
    cublasLtMatmulHeuristicResult_t out[], int* count) {
  must(most >= 2 && preference != nullptr, "nothing is asked for");
  const auto& wanted = *reinterpret_cast<const wishes*>(preference);
  *count = 0;
  problem what;
  if (!describe(product, a, b, c, d, what))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  for (const auto how : {way::divided, way::whole}) {
    algorithm one;
    one.how = how;
    one.type = what.a.type;
    std::memcpy(one.alignment, wanted.alignment, sizeof one.alignment);
    one.workspace = how == way::whole ? 0 : std::uint64_t{64} << 10;
    const bool adds_up =
        (wanted.schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0;
    if (one.workspace > wanted.workspace || (how == way::divided && !adds_up) ||
        !suits(one, what))
      continue;
    auto& to = out[(*count)++];
    std::memset(&to, 0, sizeof to);
    std::memcpy(&to.algo, &one, sizeof one);
    to.workspaceSize = one.workspace;
    to.state = CUBLAS_STATUS_SUCCESS;
  }
  return *count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

EXPORTED cublasStatus_t cublasLtMatmulAlgoCheck(
    cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algo,
    cublasLtMatmulHeuristicResult_t* out) {
  problem what;
  const auto by = read_algorithm(algo);
  if (!is_ours(by) || !describe(product, a, b, c, d, what) ||
      by.type != what.a.type || !suits(by, what))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  std::memset(out, 0, sizeof *out);
  out->algo = *algo;
  out->workspaceSize = by.workspace;
  out->state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void* alpha,
    const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
    cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
    cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
    const cublasLtMatmulAlgo_t* algo, void* workspace, std::size_t bytes,
    cudaStream_t on) {
  cublasLtMatmulHeuristicResult_t needs;
  if (cublasLtMatmulAlgoCheck(handle, product, a_layout, b_layout, c_layout,
                              d_layout, algo, &needs) != CUBLAS_STATUS_SUCCESS)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  problem what;
  describe(product, a_layout, b_layout, c_layout, d_layout, what);
  const auto by = read_algorithm(algo);
  must(c == d, "C and D are expected to be one");
  must(needs.workspaceSize <= bytes && (bytes == 0 || workspace != nullptr),
       "the workspace is too small");
  const void* places[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    must(reinterpret_cast<std::uintptr_t>(places[i]) % by.alignment[i] == 0,
         "a matrix does not begin where the preference said that it would");
  auto& stream = *reinterpret_cast<troupe::interpreted::stream*>(on);
  int current = -1;
  cudaGetDevice(&current);
  must(current == stream.of().number(),
       "the stream is not of the thread's current device");
  const auto bytes_of = [](const layout& one) {
    return (static_cast<std::size_t>(one.leading) * (one.cols - 1) + one.rows) *
           one.element_bytes();
  };
  must(is_on_a_device(a, bytes_of(what.a)) &&
           is_on_a_device(b, bytes_of(what.b)) &&
           is_on_a_device(d, bytes_of(what.c)) &&
           (bytes == 0 || is_on_a_device(workspace, bytes)),
       "a matrix, or the workspace, is not within a device's memory");
  const arguments with{read<float>(alpha, sizeof(float), "alpha"),
                       read<float>(beta, sizeof(float), "beta"),
                       static_cast<const std::uint16_t*>(a),
                       static_cast<const std::uint16_t*>(b),
                       static_cast<float*>(d),
                       by.how};
  const auto used = needs.workspaceSize;
  const auto written = bytes_of(what.c);
  return stream.add([what, with, workspace, used, written, &stream] {
    if (stream.of().failure() != cudaSuccess)
      return;
    // It begins when all before it is over; what comes next may begin early.
    auto& unfinished = troupe::interpreted::stream::unfinished();
    unfinished.clear();
    if (used > 0) // whatever was there is lost
      std::memset(workspace, 0xff, used);
    compute(what, with);
    unfinished.add(workspace, used);
    unfinished.add(with.c, written);
  }) == cudaSuccess
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}
