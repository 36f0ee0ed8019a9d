#include "hash_runner.hpp"

#include <stdexcept>

namespace troupe::engine {

namespace {

std::uint64_t mix(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

} // namespace

void hash_runner::submit(const step_plan& plan) {
  last_plan = plan;
  ++passes;
  logits_.clear();
  std::size_t next_logits = 0;
  for (std::size_t row = 0; row < plan.tokens.size(); ++row) {
    const std::int32_t position = plan.positions[row];
    const bool is_prompt =
        has_roles_ && static_cast<std::int32_t>(row) < plan.prompt_rows;
    slot_of(plan, row, position) = {plan.tokens[row], position, is_prompt};
    if (next_logits == plan.logit_rows.size() ||
        plan.logit_rows[next_logits] != static_cast<std::int32_t>(row))
      continue;
    ++next_logits;
    const std::uint64_t hash = hash_of_row(plan, row);
    const std::size_t begin = logits_.size();
    for (std::int32_t id = 0; id < vocabulary_; ++id)
      logits_.push_back(static_cast<float>(mix(hash + id) >> 40) * 0x1p-21f -
                        4.0f);
    if (distort)
      distort(std::span{logits_}.subspan(begin), plan.tokens[row]);
  }
}

std::span<const float> hash_runner::collect() {
  return logits_;
}

hash_runner::slot& hash_runner::slot_of(const step_plan& plan, std::size_t row,
                                        std::int32_t position) {
  const auto& table = plan.tables.at(plan.sequences[row]);
  const std::int32_t block = table.at(position / block_size_);
  return store_.at(std::size_t(block) * block_size_ + position % block_size_);
}

std::uint64_t hash_runner::hash_of_row(const step_plan& plan, std::size_t row) {
  std::uint64_t hash = 1;
  for (std::int32_t p = 0; p <= plan.positions[row]; ++p) {
    const slot& s = slot_of(plan, row, p);
    if (s.position != p)
      throw std::logic_error{"a row reached a position never computed"};
    hash = mix(hash * 31 + static_cast<std::uint64_t>(s.token));
    hash = s.is_prompt ? ~hash : hash;
  }
  return hash;
}

} // namespace troupe::engine
