#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

// Files that only their owner may read: keys, certificates, secrets.

namespace troupe::runtime {

/// Makes the directory if it is not there, and gives it mode 0700.
result<void> make_private_directory(const std::filesystem::path&);

enum class if_there { keep, replace };

/// Writes the file with mode 0600; it is there whole or not at all, and on disk
/// when the call returns. With `keep`, one that is there already stays as it
/// is, which is no error.
result<void> write_private(const std::filesystem::path&, std::string_view text,
                           if_there);

/// Errors: not there, others may read it, larger than `bytes_max`.
result<std::string> read_private(const std::filesystem::path&,
                                 std::size_t bytes_max = 64 * 1024);

} // namespace troupe::runtime
