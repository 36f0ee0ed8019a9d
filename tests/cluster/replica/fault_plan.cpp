#include "tests/cluster/replica/fault_plan.hpp"

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace troupe::test {

namespace {

std::string variable(const char* name) {
  const auto* value = std::getenv(name);
  return value ? value : "";
}

/// Up to the first that is no number.
std::vector<token_id> numbers(const std::string& text) {
  std::vector<token_id> out;
  const auto* at = text.data();
  const auto* end = at + text.size();
  token_id value = 0;
  while (true) {
    auto [next, code] = std::from_chars(at, end, value);
    if (code != std::errc{})
      return out;
    out.push_back(value);
    if (next == end)
      return out;
    at = next + 1;
  }
}

} // namespace

fault_plan plan_from_environment() {
  fault_plan out;
  out.abort_prompt = numbers(variable("FAULT_ABORT_PROMPT"));
  if (auto after = numbers(variable("FAULT_ABORT_OUTPUT")); !after.empty())
    out.abort_output = static_cast<std::uint32_t>(after.front());
  out.abort_by_memory = variable("FAULT_ABORT_BY") == "memory";
  out.hang_file = variable("FAULT_HANG_FILE");
  out.resume = variable("FAULT_RESUME");
  out.talks = !variable("FAULT_TALK").empty();
  return out;
}

std::uint32_t versions_apart() {
  auto given = numbers(variable("FAULT_VERSIONS_APART"));
  return given.empty() ? 0 : static_cast<std::uint32_t>(given.front());
}

} // namespace troupe::test
