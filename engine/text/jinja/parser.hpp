#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/jinja/ast.hpp"

#include <string_view>

namespace troupe::text::jinja {

/// Parses a template and checks that every tag, filter, test, method and
/// function in it is known. Errors name the line and what is wrong. Nesting
/// deeper than `depth_max` is refused.
result<block> parse(std::string_view source, std::size_t depth_max);

} // namespace troupe::text::jinja
