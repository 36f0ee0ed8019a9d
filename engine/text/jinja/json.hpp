#pragma once

#include "engine/text/jinja/builtins.hpp"

namespace troupe::text::jinja {

/// How `to_json` writes.
struct json_layout {
  int indent = -1; ///< spaces of a level, one entry a line; < 0: all in a line
  bool sort_keys = false;
  bool ascii = false; ///< other characters as \uXXXX
  marked_string item_separator{", "};
  marked_string key_separator{": "};
};

/// json.dumps(value).
marked_string to_json(meter&, const runtime_value&, const json_layout&);

} // namespace troupe::text::jinja
