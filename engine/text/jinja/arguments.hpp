#pragma once

#include "engine/text/jinja/builtins.hpp"

#include <span>
#include <string_view>

// Arguments as filters and methods read them. `what` names who asks.

namespace troupe::text::jinja {

const marked_string& text_argument(const runtime_value*, std::string_view what);
std::int64_t whole_argument(const runtime_value*, std::string_view what);
std::int64_t whole_argument(const runtime_value*, std::string_view what,
                            std::int64_t fallback);
bool flag_argument(const runtime_value*, bool fallback);

/// An error for arguments that are none of `names`, or more than these.
void check_arguments(const call_arguments&, std::string_view what,
                     std::span<const std::string_view> names);

} // namespace troupe::text::jinja
