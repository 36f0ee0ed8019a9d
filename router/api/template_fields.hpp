#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/value.hpp"

#include <string_view>

// Arguments of a chat template: a request's chat_template_kwargs, and those
// that an operator gives all requests.

namespace troupe::api {

/// Bounds of chat_template_kwargs, and of documents.
inline constexpr std::size_t template_kwargs_bytes_max = 1u << 20;
inline constexpr std::size_t template_names_max = 64;
inline constexpr std::size_t template_values_max = 10'000;
inline constexpr std::size_t template_values_depth_max = 32;

/// An operator's arguments, from the text of a JSON object. Strings are
/// trusted. Empty text is no argument.
result<text::value::map> read_operator_kwargs(std::string_view json);

} // namespace troupe::api
