#include "cuda/runtime/cublas_lt.hpp"

#include "cuda/runtime/opened_library.hpp"

#include <algorithm>
#include <cstring>
#include <cublasLt.h>

namespace troupe::cuda {

namespace {

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(product_algorithm));

error unavailable(const std::string& why) {
  return {errc::unavailable,
          "NVIDIA's library for products cannot be used: " + why};
}

/// What is called of the library.
struct functions {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtMatmulDescCreate) make_product;
  decltype(&cublasLtMatmulDescDestroy) free_product;
  decltype(&cublasLtMatmulDescSetAttribute) set_product;
  decltype(&cublasLtMatrixLayoutCreate) make_layout;
  decltype(&cublasLtMatrixLayoutDestroy) free_layout;
  decltype(&cublasLtMatrixLayoutSetAttribute) set_layout;
  decltype(&cublasLtMatmulPreferenceCreate) make_preference;
  decltype(&cublasLtMatmulPreferenceDestroy) free_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;
  decltype(&cublasLtMatmulAlgoGetHeuristic) propose;
  decltype(&cublasLtMatmulAlgoCheck) check;
  decltype(&cublasLtMatmul) multiply;
};

/// Opened once, and stays open.
result<functions> find_functions() {
  opened_library library{"libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR)};
  functions out{};
  library.take(out.create, "cublasLtCreate");
  library.take(out.destroy, "cublasLtDestroy");
  library.take(out.version, "cublasLtGetVersion");
  library.take(out.make_product, "cublasLtMatmulDescCreate");
  library.take(out.free_product, "cublasLtMatmulDescDestroy");
  library.take(out.set_product, "cublasLtMatmulDescSetAttribute");
  library.take(out.make_layout, "cublasLtMatrixLayoutCreate");
  library.take(out.free_layout, "cublasLtMatrixLayoutDestroy");
  library.take(out.set_layout, "cublasLtMatrixLayoutSetAttribute");
  library.take(out.make_preference, "cublasLtMatmulPreferenceCreate");
  library.take(out.free_preference, "cublasLtMatmulPreferenceDestroy");
  library.take(out.set_preference, "cublasLtMatmulPreferenceSetAttribute");
  library.take(out.propose, "cublasLtMatmulAlgoGetHeuristic");
  library.take(out.check, "cublasLtMatmulAlgoCheck");
  library.take(out.multiply, "cublasLtMatmul");
  if (!library.why_not().empty())
    return unavailable(library.why_not());
  return out;
}

} // namespace

/// Everything that a product needs is made once and changed for each: a step
/// allocates nothing. The library's matrices go by columns: its first is the
/// weight, [cols][outputs] and turned over, its second the rows of x,
/// [cols][rows], and what comes out is [outputs][rows].
struct cublas_lt::state {
  functions call{};
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;

  ~state() {
    for (auto one : {weight, x, y})
      if (one != nullptr)
        call.free_layout(one);
    if (product != nullptr)
      call.free_product(product);
    if (handle != nullptr)
      call.destroy(handle);
  }

  bool make() {
    const cublasOperation_t turned = CUBLAS_OP_T;
    constexpr auto good = CUBLAS_STATUS_SUCCESS;
    return call.create(&handle) == good &&
           call.make_product(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
               good &&
           call.set_product(product, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                            sizeof turned) == good &&
           call.make_layout(&weight, CUDA_R_16BF, 8, 8, 8) == good &&
           call.make_layout(&x, CUDA_R_16BF, 8, 8, 8) == good &&
           call.make_layout(&y, CUDA_R_32F, 8, 8, 8) == good;
  }

  void set_type(cublasLtMatrixLayout_t layout, cudaDataType_t type) const {
    const auto number = static_cast<std::uint32_t>(type);
    call.set_layout(layout, CUBLASLT_MATRIX_LAYOUT_TYPE, &number,
                    sizeof number);
  }

  void set(cublasLtMatrixLayout_t layout, std::int64_t rows,
           std::int64_t cols) const {
    const auto rows_u = static_cast<std::uint64_t>(rows);
    const auto cols_u = static_cast<std::uint64_t>(cols);
    call.set_layout(layout, CUBLASLT_MATRIX_LAYOUT_ROWS, &rows_u,
                    sizeof rows_u);
    call.set_layout(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &cols_u,
                    sizeof cols_u);
    call.set_layout(layout, CUBLASLT_MATRIX_LAYOUT_LD, &rows, sizeof rows);
  }

  void set_shapes(const product_shape& shape, std::int64_t rows) const {
    const auto type =
        shape.kind == ops::library_kind::f16 ? CUDA_R_16F : CUDA_R_16BF;
    set_type(weight, type);
    set_type(x, type);
    set(weight, shape.cols, shape.outputs);
    set(x, shape.cols, rows);
    set(y, shape.outputs, rows);
  }

  /// Adds what it proposes for so many rows to `to`.
  void propose(const product_shape& shape, std::int64_t rows,
               std::size_t workspace_bytes,
               std::vector<product_algorithm>& to) const {
    cublasLtMatmulPreference_t wish = nullptr;
    if (call.make_preference(&wish) != CUBLAS_STATUS_SUCCESS)
      return;
    const auto bytes = static_cast<std::uint64_t>(workspace_bytes);
    call.set_preference(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                        sizeof bytes);
    // Parts of a sum that are added where they lie come in any order.
    const std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    call.set_preference(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                        &schemes, sizeof schemes);
    // Rows of ours begin at multiples of that (has_algorithms); the library
    // takes 256 for granted.
    constexpr std::uint32_t alignment = 16;
    for (const auto matrix : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      call.set_preference(wish, matrix, &alignment, sizeof alignment);
    constexpr int most = 16;
    cublasLtMatmulHeuristicResult_t found[most];
    int count = 0;
    set_shapes(shape, rows);
    if (call.propose(handle, product, weight, x, y, y, wish, most, found,
                     &count) != CUBLAS_STATUS_SUCCESS)
      count = 0;
    call.free_preference(wish);
    for (int i = 0; i < count; ++i) {
      product_algorithm one;
      std::memcpy(one.data(), &found[i].algo, sizeof one);
      if (found[i].state == CUBLAS_STATUS_SUCCESS &&
          std::find(to.begin(), to.end(), one) == to.end())
        to.push_back(one);
    }
  }
};

cublas_lt::cublas_lt() : state_(std::make_unique<state>()) {
  // nop
}

cublas_lt::~cublas_lt() = default;

result<std::unique_ptr<cublas_lt>> cublas_lt::open() {
  auto found = find_functions();
  if (!found)
    return found.error();
  std::unique_ptr<cublas_lt> out{new cublas_lt};
  out->state_->call = *found;
  if (!out->state_->make())
    return unavailable("it cannot be initialised on this GPU");
  return out;
}

std::string cublas_lt::name() const {
  return "cublasLt " + std::to_string(state_->call.version());
}

std::vector<product_algorithm>
cublas_lt::algorithms(const product_shape& shape, std::size_t workspace_bytes) {
  std::vector<product_algorithm> out;
  for (const std::int64_t rows : {2048, 256, 64, 16, 1})
    state_->propose(shape, rows, workspace_bytes, out);
  return out;
}

bool cublas_lt::multiply(const product_algorithm& algorithm,
                         const product& what, cudaStream_t stream) {
  auto& s = *state_;
  cublasLtMatmulAlgo_t algo;
  std::memcpy(&algo, algorithm.data(), sizeof algo);
  const float one = 1, kept = what.add ? 1 : 0;
  s.set_shapes(what.shape, what.rows);
  cublasLtMatmulHeuristicResult_t needs;
  if (s.call.check(s.handle, s.product, s.weight, s.x, s.y, s.y, &algo,
                   &needs) != CUBLAS_STATUS_SUCCESS ||
      needs.workspaceSize > what.workspace_bytes)
    return false;
  return s.call.multiply(s.handle, s.product, &one, what.weight, s.weight,
                         what.x, s.x, &kept, what.y, s.y, what.y, s.y, &algo,
                         what.workspace, what.workspace_bytes,
                         stream) == CUBLAS_STATUS_SUCCESS;
}

} // namespace troupe::cuda
