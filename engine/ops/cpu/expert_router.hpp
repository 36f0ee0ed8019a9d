#pragma once

#include "engine/ops/cpu/kernels.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::ops::cpu {

/// The experts of some rows: row r's are `experts[r * chosen ...]`, best first,
/// and `shares` what each contributes.
struct routing_view {
  std::span<std::int32_t> experts;
  std::span<float> shares;
  std::int32_t chosen = 0; ///< per row
};

/// Chooses the experts of rows (ops::backend::mix_experts). Scores are compared
/// as they are, so that rounding in the softmax cannot change the choice;
/// shares are divided by their sum, added up from the best expert on.
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
