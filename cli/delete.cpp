#include "cli/ask_head.hpp"

#include <fmt/format.h>

#include <iostream>
#include <unistd.h>

namespace troupe::cli {

namespace {

constexpr auto applications = "/api/serve/applications/";

} // namespace

int remove(const admin_arguments& where, const std::string& application) {
  if (!ask_head(where, "DELETE", applications + node::encoded(application)))
    return 1;
  fmt::print("{} is taken out\n", application);
  return 0;
}

int shutdown(const admin_arguments& where, bool sure) {
  if (!sure) {
    fmt::print("Take all applications out of the cluster? [y/N] ");
    std::fflush(stdout);
    std::string answer;
    std::getline(std::cin, answer);
    if (answer != "y" && answer != "Y" && answer != "yes")
      return 1;
  }
  if (!ask_head(where, "DELETE", applications))
    return 1;
  fmt::print("all applications are taken out; `troupe stop` ends a node\n");
  return 0;
}

} // namespace troupe::cli
