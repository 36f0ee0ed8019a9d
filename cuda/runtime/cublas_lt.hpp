#pragma once

#include "cuda/product.hpp"
#include "engine/codec/error.hpp"

#include <cuda_runtime.h>
#include <memory>
#include <string>
#include <vector>

namespace troupe::cuda {

/// NVIDIA's library for products. It is opened at run time: a machine may have
/// a driver and no such library.
class cublas_lt {
public:
  /// For the current device. Errors say what is lacking.
  static result<std::unique_ptr<cublas_lt>> open();

  ~cublas_lt();

  /// "cublasLt 130100": equal ones have the same algorithms.
  std::string name() const;

  /// What it proposes for few, some and many rows: each once, the best for many
  /// first. All give the same bits for the same product whenever they are used.
  std::vector<product_algorithm> algorithms(const product_shape& shape,
                                            std::size_t workspace_bytes);

  /// False if the algorithm cannot do it.
  bool multiply(const product_algorithm& algorithm, const product& what,
                cudaStream_t stream);

private:
  cublas_lt();
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace troupe::cuda
