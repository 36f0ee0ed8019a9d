#include "engine/text/value.hpp"

namespace troupe::text {

value value::content(std::string_view text) {
  return {text_pieces{{std::string{text}, true}}};
}

value value::trusted(std::string_view text) {
  return {text_pieces{{std::string{text}, false}}};
}

} // namespace troupe::text
