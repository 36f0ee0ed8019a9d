#pragma once

#include <string>
#include <string_view>

namespace troupe::text::jinja {

/// The small and the capital form of one character, as Python has them; broken
/// bytes stay. Capital forms may be several characters.
std::string lower_form(std::string_view character);
std::string upper_form_of(std::string_view character);

} // namespace troupe::text::jinja
