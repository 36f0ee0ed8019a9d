#include "cli/ask_head.hpp"

#include <fmt/format.h>

namespace troupe::cli {

int revoke_node(const admin_arguments& where, const std::string& node) {
  auto body = ask_head(where, "DELETE", "/api/nodes/" + node::encoded(node));
  if (!body)
    return 1;
  simdjson::dom::parser parser;
  simdjson::dom::element answer;
  if (parser.parse(*body).get(answer) != simdjson::SUCCESS) {
    fmt::print(stderr, "the answer cannot be read\n");
    return 1;
  }
  fmt::print("{} is shut out: its certificates are void, and so are all tokens "
             "made before now\n",
             node);
  if (text(answer, "was") == "unknown")
    fmt::print("(no node of this name is known now; is it the right one?)\n");
  fmt::print("to let a machine in again: `troupe token create` on the head\n");
  return 0;
}

} // namespace troupe::cli
