#include "engine/weights/json_document.hpp"

#include "engine/weights/printable.hpp"

#include <fmt/format.h>
#include <unordered_set>

namespace troupe::weights {

namespace dom = simdjson::dom;

namespace {

constexpr std::size_t depth_max = 64;

} // namespace

result<json_document> json_document::parse(std::string_view text,
                                           const std::string& name) {
  if (text.size() > bytes_max)
    return error{errc::limit, fmt::format("{}: {} bytes are too many to be a "
                                          "model's",
                                          name, text.size())};
  json_document out;
  out.parser_ = std::make_unique<dom::parser>();
  if (out.parser_->allocate(text.size(), depth_max) != simdjson::SUCCESS)
    return error{errc::limit, name + ": out of memory"};
  dom::element root;
  if (auto code = out.parser_->parse(text.data(), text.size()).get(root))
    return error{errc::corrupt, name + ": " + simdjson::error_message(code)};
  if (root.get(out.root_))
    return error{errc::corrupt, name + ": not an object"};
  std::unordered_set<std::string_view> keys;
  for (auto field : out.root_)
    if (!keys.insert(field.key).second)
      return error{errc::corrupt, fmt::format("{}: '{}' is there twice", name,
                                              printable(field.key))};
  return out;
}

} // namespace troupe::weights
