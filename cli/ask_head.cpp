#include "cli/ask_head.hpp"

#include <fmt/format.h>

namespace troupe::cli {

std::optional<node::admin_place> place_of(const admin_arguments& where) {
  if (where.admin.empty())
    return node::admin_place{where.admin_host, where.admin_port};
  auto place = node::parse_place(where.admin);
  if (place)
    return *place;
  fmt::print(stderr, "{}\n", place.error().message);
  return std::nullopt;
}

std::optional<std::string> ask_head(const admin_arguments& where,
                                    const std::string& method,
                                    const std::string& path, std::string body) {
  constexpr std::chrono::seconds time_max{40};
  auto place = place_of(where);
  if (!place)
    return std::nullopt;
  auto answer =
      node::ask_admin(*place, method, path, std::move(body), time_max);
  if (!answer) {
    fmt::print(stderr, "{}\n", answer.error().message);
    return std::nullopt;
  }
  if (answer->status / 100 == 2)
    return std::move(answer->body);
  if (answer->status == 404 && path == "/api/status")
    fmt::print(stderr, "{} is the admin listener of a worker; ask the head's\n",
               node::to_string(*place));
  else
    fmt::print(stderr, "{}: {}\n", node::to_string(*place),
               node::reason_of(*answer));
  return std::nullopt;
}

std::string_view text(simdjson::dom::element object, std::string_view key) {
  std::string_view out;
  return object[key].get(out) == simdjson::SUCCESS ? out : std::string_view{};
}

} // namespace troupe::cli
