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

void append(std::vector<std::byte>& to, const std::vector<std::int32_t>& list) {
  const auto length = static_cast<std::uint32_t>(list.size());
  append(to, &length, sizeof length);
  append(to, list.data(), list.size() * sizeof(std::int32_t));
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

  std::vector<std::int32_t> list() {
    const std::size_t count = length();
    if (count > rest_.size() / sizeof(std::int32_t)) {
      good_ = false;
      return {};
    }
    std::vector<std::int32_t> out(count);
    take(out.data(), count * sizeof(std::int32_t));
    return out;
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

void encode(const step_plan& plan, std::vector<std::byte>& out) {
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
}

result<step_plan> decode_step_plan(std::span<const std::byte> from) {
  plan_reader in{from};
  step_plan out;
  out.tokens = in.list();
  out.positions = in.list();
  out.sequences = in.list();
  out.logit_rows = in.list();
  const auto prompts = in.length();
  out.prompt_rows = static_cast<std::int32_t>(prompts);
  for (auto tables = in.length(); tables > 0 && in.good(); --tables)
    out.tables.push_back(in.list());
  if (!in.at_end() || out.positions.size() != out.tokens.size() ||
      out.sequences.size() != out.tokens.size() || prompts > out.tokens.size())
    return error{errc::invalid_argument, "this is no plan of a step"};
  return out;
}

} // namespace troupe::model
