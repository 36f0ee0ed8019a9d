#pragma once

#include "engine/codec/error.hpp"

#include <caf/atom.hpp>
#include <caf/error.hpp>
#include <caf/message.hpp>

#include <cstdint>

namespace troupe::controller {

/// The category of the controller's errors among those of CAF.
inline constexpr caf::atom_value error_category = caf::atom("controller");

/// An error of ours as the answer to a request.
inline caf::error to_answer(const error& from) {
  // CAF's code 0 is no error.
  return {static_cast<std::uint8_t>(static_cast<std::uint8_t>(from.code) + 1),
          error_category, caf::make_message(from.message)};
}

/// The error that an answer was; CAF's own mean that there was no answer.
inline error from_answer(const caf::error& answer) {
  const auto& words = answer.context();
  auto code = answer.code() - 1;
  if (answer.category() == error_category && code >= 0 &&
      code <= static_cast<int>(errc::internal) &&
      words.match_elements<std::string>())
    return {static_cast<errc>(code), words.get_as<std::string>(0)};
  return {errc::unavailable, "the controller does not answer"};
}

} // namespace troupe::controller
