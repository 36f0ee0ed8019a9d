#pragma once

#include <boost/system/result.hpp>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace troupe {

/// What kind of failure an `error` reports. Broken invariants are not errors:
/// they abort.
enum class errc : std::uint8_t {
  invalid_argument, ///< the caller's value is wrong
  not_found,
  corrupt,     ///< a file or message does not say what its format demands
  unsupported, ///< valid, but not built yet or refused on purpose
  limit,       ///< a stated bound would be passed
  io,
  unavailable, ///< the other side is gone, starting or stopping
  cancelled,
  internal,
};

/// The name used in logs and messages ("invalid_argument", ...).
std::string_view to_string(errc code);

/// An error as a value. `message` is a sentence fit for a user: it names the
/// field, file or position and never holds secrets or addresses.
struct error {
  errc code = errc::internal;
  std::string message;
};

/// Either a value or an `error`.
template <class T>
using result = boost::system::result<T, error>;

/// Called by `result::value()` on an error; for tests and examples only, other
/// code asks first.
[[noreturn]] inline void
throw_exception_from_error(const error& e, const boost::source_location&) {
  throw std::runtime_error(e.message);
}

} // namespace troupe
