#pragma once

#include "engine/codec/error.hpp"

#include <string>

namespace troupe::runtime {

struct logging_options {
  std::string level = "info"; ///< "debug", "info", "warning", "error"; any case
  bool json = false;          ///< one object per line instead of plain text
  std::string process;        ///< "head", "replica m#1": part of every line
};

/// Sends what is logged (spdlog's default logger) to standard error. Call it
/// before threads log. Errors: an unknown level.
result<void> set_up_logging(const logging_options&);

} // namespace troupe::runtime
