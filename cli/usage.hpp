#pragma once

#include <CLI/App.hpp>

#include <string>

namespace troupe::cli {

/// What is wrong with a command line, in one line, and where its help is.
std::string usage_message(const CLI::App*, const CLI::Error&);

/// A number of bytes, of which "4GiB" is none.
CLI::Validator bytes();

} // namespace troupe::cli
