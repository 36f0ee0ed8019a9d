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

result<std::string> try_head(const node::admin_place& place,
                             const std::string& method, const std::string& path,
                             std::string body) {
  constexpr std::chrono::seconds time_max{40};
  constexpr int not_found = 404, service_unavailable = 503;
  auto answer = node::ask_admin(place, method, path, std::move(body), time_max);
  if (!answer)
    return answer.error();
  if (answer->status / 100 == 2)
    return std::move(answer->body);
  if (answer->status == not_found && path == "/api/status")
    return error{errc::not_found,
                 node::to_string(place) +
                     " is the admin listener of a worker; ask the head's"};
  return error{answer->status == service_unavailable ? errc::unavailable
                                                     : errc::invalid_argument,
               node::to_string(place) + ": " + node::reason_of(*answer)};
}

std::optional<std::string> ask_head(const admin_arguments& where,
                                    const std::string& method,
                                    const std::string& path, std::string body) {
  auto place = place_of(where);
  if (!place)
    return std::nullopt;
  auto answer = try_head(*place, method, path, std::move(body));
  if (answer)
    return std::move(*answer);
  fmt::print(stderr, "{}\n", answer.error().message);
  return std::nullopt;
}

std::string_view text(simdjson::dom::element object, std::string_view key) {
  std::string_view out;
  return object[key].get(out) == simdjson::SUCCESS ? out : std::string_view{};
}

} // namespace troupe::cli
