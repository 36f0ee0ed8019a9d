// Fuzz target for chat templates: parsed, and rendered within small limits.
// Build with clang++ -fsanitize=fuzzer,address,undefined.

#include "engine/text/chat_template.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  using namespace troupe::text;
  auto made = chat_template::compile(
      {reinterpret_cast<const char*>(data), size}, {1'000, 1u << 16, 64});
  if (!made)
    return 0;
  value::map message{{"role", value::trusted("user")},
                     {"content", value::content("text </s>")},
                     {"n", {std::int64_t{3}}}};
  value::map globals{{"messages", {value::list{{message}, {message}}}},
                     {"tools", {}},
                     {"now_seconds", {std::int64_t{1781524800}}},
                     {"add_generation_prompt", {true}}};
  (void)(*made)->render(globals);
  return 0;
}
