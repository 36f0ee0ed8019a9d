#pragma once

#include "engine/ops/backend.hpp"
#include "engine/ops/cpu/kernels.hpp"

#include <vector>

namespace troupe::ops::cpu {

/// Chooses the experts of rows (backend.hpp, `route`). Scores are compared as
/// they are, so that rounding in the softmax cannot change the choice; shares
/// are divided by their sum, added up from the best expert on.
class expert_router {
public:
  void run(const kernel_table& kernels, const float* scores, std::int64_t rows,
           std::int32_t experts, bool normalise, const routing_view& out);

private:
  void choose(const float* scores, std::int32_t experts,
              std::span<std::int32_t> chosen);

  std::vector<float> shares_;
  std::vector<char> taken_;
};

} // namespace troupe::ops::cpu
