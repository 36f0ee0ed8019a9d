#include "actors/runtime/token.hpp"

#include "cli/commands.hpp"
#include "node/state_directory.hpp"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace troupe::cli {

namespace {

/// "30s", "15m", "24h", "7d".
std::optional<std::chrono::seconds> parse_duration(const std::string& text) {
  std::int64_t count = 0;
  const auto* end = text.data() + text.size();
  auto read = std::from_chars(text.data(), end, count);
  if (read.ec != std::errc{} || read.ptr + 1 != end || count <= 0 ||
      count > 1'000'000'000)
    return std::nullopt;
  switch (*read.ptr) {
  case 's':
    return std::chrono::seconds{count};
  case 'm':
    return std::chrono::minutes{count};
  case 'h':
    return std::chrono::hours{count};
  case 'd':
    return std::chrono::hours{24 * count};
  default:
    return std::nullopt;
  }
}

} // namespace

int create_token(const token_arguments& args) {
  auto good_for = parse_duration(args.good_for);
  if (!good_for) {
    fmt::print(stderr, "--good-for {}: give a time such as 30s, 15m, 24h, 7d\n",
               args.good_for);
    return 2;
  }
  auto state_dir =
      args.state_dir.empty() ? node::default_state_dir() : args.state_dir;
  auto folder = state_dir / "authority";
  if (std::error_code code; !std::filesystem::is_directory(folder, code)) {
    fmt::print(stderr, "no head was ever started with the state directory {}\n",
               state_dir.string());
    return 1;
  }
  auto issuer = runtime::authority::open(folder);
  if (!issuer) {
    fmt::print(stderr, "{}\n", issuer.error().message);
    return 1;
  }
  auto token = runtime::create_token(*issuer, *good_for);
  if (!token) {
    fmt::print(stderr, "{}\n", token.error().message);
    return 1;
  }
  fmt::print("{}\n", token->text);
  return 0;
}

} // namespace troupe::cli
