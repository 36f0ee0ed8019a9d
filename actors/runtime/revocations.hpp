#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/runtime/authority.hpp"
#include "engine/codec/error.hpp"

#include <openssl/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// Whose certificates are void. The authority keeps the list in its directory;
// every node has a copy beside its credentials, in a file that all processes of
// the node look at: whoever writes it tells them all. A file that is not there
// means that there are none.

namespace troupe::runtime {

using revocation_list = std::vector<protocol::revocation>;

/// Of one cluster, ever; a further one is refused (errc::limit).
inline constexpr std::size_t revocations_max = 4'096;

/// A list as it stands in a file. Errors name no file: broken bytes, a name or
/// an era that cannot be, a name twice, too many.
std::string write_revocations(const revocation_list&);
result<revocation_list> read_revocations(std::string_view bytes);

/// The list in a file of mode 0600. Errors name the file: it cannot be read,
/// others may read it, it is damaged.
result<revocation_list> load_revocations(const std::filesystem::path&);
result<void> save_revocations(const std::filesystem::path&,
                              const revocation_list&);

/// The newest era of a list: what is issued now is of it. 0 without any.
std::uint32_t newest_era(const revocation_list&);

/// What a process knows of the list beside its credentials. Any thread.
class revocations {
public:
  /// How long the word of others, in the file, may go unseen; handshakes look
  /// each time.
  static constexpr std::chrono::milliseconds look_interval{200};

  /// The one of these credentials; it lives as long as the process.
  static revocations& of(const credentials&);

  explicit revocations(std::filesystem::path file);

  /// Makes it the list, for this process at once and for the others of the
  /// node. Errors: the file cannot be written; this process knows anyhow.
  result<void> replace(const revocation_list&);

  /// Whether the certificate is void by the newest list. An error if that
  /// cannot be read: nobody can be trusted then.
  result<bool> voids(X509*);

  /// Another number whenever the list may be another one. Cheap.
  std::uint64_t generation();

  /// The head has said that this node's own certificate is void.
  void own_is_void() {
    own_is_void_ = true;
  }
  bool is_own_void() const {
    return own_is_void_;
  }

private:
  /// What tells one content of the file from another.
  struct file_state {
    std::uint64_t inode = 0;
    std::int64_t modified_ns = 0;
    std::int64_t size = -1; ///< -1 = it is not there

    bool operator==(const file_state&) const = default;
  };

  void look();
  void take(const revocation_list&);
  file_state state_of_file() const;

  const std::filesystem::path file_;
  std::mutex mutex_;
  std::map<std::string, std::uint32_t> since_; ///< by node
  std::optional<error> fault_;                 ///< why the file cannot be read
  std::optional<file_state> seen_;
  std::chrono::steady_clock::time_point look_at_{};
  std::uint64_t generation_ = 0;
  std::atomic<bool> own_is_void_ = false;
};

/// From now on handshakes with the context refuse, beside whom they refuse
/// anyhow, whose certificate is void: with the alert "certificate revoked".
/// `list` outlives the context.
void refuse_revoked(SSL_CTX*, revocations& list);

/// The list that the context was given; null if none was.
revocations* revocations_of(const SSL_CTX*);

} // namespace troupe::runtime
