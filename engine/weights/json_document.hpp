#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <memory>
#include <simdjson.h>
#include <string>
#include <string_view>

namespace troupe::weights {

/// A file's JSON object, parsed. At most 64 levels deep; no key of the object
/// itself occurs twice, since readers would differ on which one counts.
class json_document {
public:
  /// Parsing takes up to 14 bytes per byte of a hostile text, so this keeps it
  /// to the file's size and 64 MiB.
  static constexpr std::size_t bytes_max = 5u << 20;

  /// Errors begin with `name`. A text above `bytes_max` is refused.
  static result<json_document> parse(std::string_view text,
                                     const std::string& name);

  /// Valid as long as the document, also when that is moved.
  const simdjson::dom::object& root() const {
    return root_;
  }

private:
  std::unique_ptr<simdjson::dom::parser> parser_;
  simdjson::dom::object root_;
};

} // namespace troupe::weights
