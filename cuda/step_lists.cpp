#include "cuda/step_lists.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace troupe::cuda {

void pack_rows(const ops::batch_view& batch, packed_rows& out) {
  auto& to = out.numbers;
  to.assign(batch.positions.begin(), batch.positions.end());
  out.sequences = to.size();
  to.insert(to.end(), batch.sequences.begin(), batch.sequences.end());
  out.tables = to.size();
  for (const auto& table : batch.tables)
    to.insert(to.end(), table.begin(), table.end());
  out.table_begins = to.size();
  std::int32_t begin = 0;
  for (const auto& table : batch.tables) {
    to.push_back(begin);
    begin += static_cast<std::int32_t>(table.size());
  }
  out.last = to.size();
  // Rows of a sequence stand together, in ascending positions.
  const auto rows = batch.positions.size();
  to.resize(out.last + rows);
  for (std::size_t r = rows; r-- > 0;) {
    auto ends = r + 1 == rows || batch.sequences[r + 1] != batch.sequences[r];
    to[out.last + r] = ends ? batch.positions[r] : to[out.last + r + 1];
  }
}

void choose_experts(std::span<const float> scores, std::int32_t experts,
                    bool normalise, const ops::routing_view& out) {
  const auto width = static_cast<std::size_t>(experts);
  const auto chosen = static_cast<std::size_t>(out.chosen);
  assert(chosen >= 1 && chosen <= width);
  std::vector<std::int32_t> order(width);
  for (std::size_t row = 0; row * width < scores.size(); ++row) {
    const auto of = scores.subspan(row * width, width);
    for (std::size_t e = 0; e < width; ++e)
      order[e] = static_cast<std::int32_t>(e);
    // What is no number comes last.
    auto score_of = [&](std::int32_t e) {
      const auto score = of[static_cast<std::size_t>(e)];
      return std::isnan(score) ? -INFINITY : score;
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](auto a, auto b) { return score_of(a) > score_of(b); });
    const auto most = of[static_cast<std::size_t>(order[0])];
    float all = 0, taken = 0;
    for (auto score : of)
      all += std::exp(score - most);
    for (std::size_t k = 0; k < chosen; ++k) {
      const auto score = of[static_cast<std::size_t>(order[k])];
      const auto share = std::exp(score - most) / all;
      out.experts[row * chosen + k] = order[k];
      out.shares[row * chosen + k] = share;
      taken += share;
    }
    for (std::size_t k = 0; normalise && k < chosen; ++k)
      out.shares[row * chosen + k] /= taken;
  }
}

} // namespace troupe::cuda
