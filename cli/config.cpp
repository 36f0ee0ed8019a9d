#include "config/serve_config.hpp"

#include "cli/ask_head.hpp"

#include <fmt/format.h>

namespace troupe::cli {

int config(const admin_arguments& where) {
  auto document = ask_head(where, "GET", "/api/config");
  if (!document)
    return 1;
  fmt::print("{}", troupe::config::to_yaml(*document));
  return 0;
}

} // namespace troupe::cli
