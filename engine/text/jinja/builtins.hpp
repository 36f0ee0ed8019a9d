#pragma once

#include "engine/text/jinja/runtime_value.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The filters, tests, methods and functions that templates may use, by name.
// What is not in the tables is refused when a template is compiled.

namespace troupe::text::jinja {

/// Evaluated arguments of a call.
struct call_arguments {
  std::vector<runtime_value> positional;
  std::vector<std::pair<std::string, runtime_value>> named;

  /// The argument at `index`, or of that name; null if it was not given.
  const runtime_value* find(std::size_t index, std::string_view name) const;
};

/// Counts what a rendering costs and stops it at its limits.
class meter {
public:
  virtual ~meter() = default;

  /// Takes `operations`; throws render_error(limit) past the bound.
  virtual void spend(std::size_t operations) = 0;

  /// Throws render_error(limit) if a text of so many bytes may not be made.
  virtual void check_bytes(std::size_t bytes) = 0;
};

bool is_filter(std::string_view name);
bool is_test(std::string_view name);
bool is_method(std::string_view name);
bool is_function(std::string_view name);

/// True for tests such as `divisibleby 3` that take what follows them.
bool test_takes_argument(std::string_view name);

runtime_value apply_filter(meter&, std::string_view name,
                           const runtime_value& input, const call_arguments&);
bool apply_test(meter&, std::string_view name, const runtime_value& input,
                const call_arguments&);

/// A function of Jinja's. `now` are the seconds since 1970 for strftime_now, or
/// null.
runtime_value call_function(meter&, std::string_view name,
                            const call_arguments&, const runtime_value* now);

runtime_value call_method(meter&, const runtime_value& object,
                          std::string_view name, const call_arguments&);

/// object.name or object["name"]: a key of a dict or namespace, or a member of
/// `loop`, a cycler or a group; undefined if there is none.
runtime_value attribute_of(const runtime_value& object, std::string_view name);

/// object[index]; undefined if there is none.
runtime_value item_of(const runtime_value& object, const runtime_value& index);

/// part in whole.
bool contains(const runtime_value& whole, const runtime_value& part);

/// A text that may not pass the meter's bound.
marked_string concatenate(meter&, const marked_string&, const marked_string&);

} // namespace troupe::text::jinja
