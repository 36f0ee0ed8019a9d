#include "engine/codec/error.hpp"

namespace troupe {

std::string_view to_string(errc code) {
  switch (code) {
  case errc::invalid_argument:
    return "invalid_argument";
  case errc::not_found:
    return "not_found";
  case errc::corrupt:
    return "corrupt";
  case errc::unsupported:
    return "unsupported";
  case errc::limit:
    return "limit";
  case errc::io:
    return "io";
  case errc::unavailable:
    return "unavailable";
  case errc::cancelled:
    return "cancelled";
  case errc::internal:
    return "internal";
  }
  return "internal";
}

} // namespace troupe
