#pragma once

#include "engine/codec/error.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace troupe::runtime {

/// Files that let a process prove that it belongs to the cluster. They are
/// read again for every connection, so they live as long as the process.
struct credentials {
  std::filesystem::path certificate; ///< PEM, the process's own
  std::filesystem::path key;         ///< PEM, mode 0600
  std::filesystem::path authority;   ///< PEM, whom to trust: nobody else
};

/// The cluster's own certificate authority (EC P-256). Whoever holds a
/// certificate of it may say anything to any process of the cluster; nobody
/// else gets a word in (mutual TLS on every port).
class authority {
public:
  /// Opens `directory`/authority.pem, or makes it at the first start: the
  /// directory gets mode 0700, the file 0600 and is there whole or not at all.
  /// Errors: a file that others can read, is damaged or no longer valid.
  static result<authority> open(const std::filesystem::path& directory);

  /// Issues a certificate for the process `name` and writes it, its key and
  /// the authority's certificate into `directory` (made with mode 0700).
  result<credentials> issue(std::string_view name,
                            const std::filesystem::path& directory) const;

private:
  struct keys;

  explicit authority(std::shared_ptr<const keys>);

  std::shared_ptr<const keys> keys_;
};

} // namespace troupe::runtime
