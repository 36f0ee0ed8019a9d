#include "engine/model/plan_record.hpp"

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace troupe::model {

namespace {

using engine::step_plan;

static_assert(std::is_same_v<token_id, std::int32_t>);

void append(std::vector<std::byte>& to, const void* from, std::size_t bytes) {
  const auto at = to.size();
  to.resize(at + bytes);
  if (bytes > 0)
    std::memcpy(to.data() + at, from, bytes);
}

template <class T>
void append(std::vector<std::byte>& to, const std::vector<T>& list) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto length = static_cast<std::uint32_t>(list.size());
  append(to, &length, sizeof length);
  append(to, list.data(), list.size() * sizeof(T));
}

/// Takes what was appended; from the first mistake on, nothing.
class plan_reader {
public:
  explicit plan_reader(std::span<const std::byte> from) : rest_(from) {
    // nop
  }

  std::uint32_t length() {
    std::uint32_t out = 0;
    take(&out, sizeof out);
    return out;
  }

  template <class T>
  void list(std::vector<T>& out) {
    const std::size_t count = length();
    if (count > rest_.size() / sizeof(T)) {
      good_ = false;
      return;
    }
    out.resize(count);
    take(out.data(), count * sizeof(T));
  }

  bool good() const {
    return good_;
  }

  bool at_end() const {
    return good_ && rest_.empty();
  }

private:
  void take(void* to, std::size_t bytes) {
    good_ = good_ && bytes <= rest_.size();
    if (!good_ || bytes == 0)
      return;
    std::memcpy(to, rest_.data(), bytes);
    rest_ = rest_.subspan(bytes);
  }

  std::span<const std::byte> rest_;
  bool good_ = true;
};

} // namespace

void encode(const step_plan& plan, const ops::draw_plan* draws,
            std::vector<std::byte>& out) {
  out.clear();
  append(out, plan.tokens);
  append(out, plan.positions);
  append(out, plan.sequences);
  append(out, plan.logit_rows);
  const auto prompts = static_cast<std::uint32_t>(plan.prompt_rows);
  append(out, &prompts, sizeof prompts);
  const auto tables = static_cast<std::uint32_t>(plan.tables.size());
  append(out, &tables, sizeof tables);
  for (const auto& table : plan.tables)
    append(out, table);
  const std::uint32_t draws_follow = draws != nullptr ? 1 : 0;
  append(out, &draws_follow, sizeof draws_follow);
  if (draws == nullptr)
    return;
  append(out, draws->rows);
  append(out, draws->changes);
  append(out, draws->masks);
}

result<step_record> decode_step(std::span<const std::byte> from) {
  plan_reader in{from};
  step_record out;
  auto& plan = out.plan;
  for (auto* list :
       {&plan.tokens, &plan.positions, &plan.sequences, &plan.logit_rows})
    in.list(*list);
  const auto prompts = in.length();
  plan.prompt_rows = static_cast<std::int32_t>(prompts);
  for (auto tables = in.length(); tables > 0 && in.good(); --tables)
    in.list(plan.tables.emplace_back());
  if (in.length() != 0) {
    auto& draws = out.draws.emplace();
    in.list(draws.rows);
    in.list(draws.changes);
    in.list(draws.masks);
  }
  if (!in.at_end() || plan.positions.size() != plan.tokens.size() ||
      plan.sequences.size() != plan.tokens.size() ||
      prompts > plan.tokens.size() ||
      (out.draws && out.draws->rows.size() != plan.logit_rows.size()))
    return error{errc::invalid_argument, "this is no plan of a step"};
  return out;
}

} // namespace troupe::model
