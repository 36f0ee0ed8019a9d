#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <filesystem>
#include <string>

namespace troupe::weights {

/// The content of a regular file of at most `bytes_max` bytes that is not
/// empty; a larger one is refused unread (errc::limit). Errors name the file.
result<std::string> read_text_file(const std::filesystem::path& path,
                                   std::size_t bytes_max);

/// The same; a file that is not there is an empty text.
result<std::string> read_text_file_if_there(const std::filesystem::path& path,
                                            std::size_t bytes_max);

} // namespace troupe::weights
