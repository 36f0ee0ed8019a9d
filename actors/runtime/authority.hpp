#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "engine/codec/error.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::runtime {

/// Files that let a process prove that it belongs to the cluster. They are
/// read again for every connection, so they live as long as the process.
struct credentials {
  std::filesystem::path certificate; ///< PEM, the process's own
  std::filesystem::path key;         ///< PEM, mode 0600
  std::filesystem::path authority;   ///< PEM, whom to trust: nobody else
};

/// The names that credentials have in a directory of their own.
credentials credentials_in(const std::filesystem::path& directory);

/// The cluster's own certificate authority (EC P-256). Whoever holds a
/// certificate of it may say anything to any process of the cluster; nobody
/// else gets a word in (mutual TLS on every port). What a node was given can be
/// taken back (`revoke`).
class authority {
public:
  /// Opens `directory`/authority.pem, or makes it at the first start: the
  /// directory gets mode 0700, the file 0600 and is there whole or not at all.
  /// Errors: a file that others can read, is damaged or no longer valid.
  static result<authority> open(const std::filesystem::path& directory);

  /// Issues a certificate for the head, called `name`, and writes it, its key,
  /// the authority's certificate and the list of revoked nodes into `directory`
  /// (made with mode 0700). It cannot be revoked.
  result<credentials> issue(std::string_view name,
                            const std::filesystem::path& directory) const;

  /// A certificate (PEM) for the key of a certificate request (PEM), for the
  /// node `name` at `address` (numeric; "" = none is named in it). All else
  /// that the request asks for is ignored: the certificate is for both sides
  /// of a connection and signs no others. `of_era` is newest_era(revoked()) as
  /// it was before it was known that the node may join; one who was revoked
  /// since gets what is void. Errors: no request, one that its key has not
  /// signed, a key that is not of EC P-256.
  result<std::string> sign(std::string_view request_pem, std::string_view name,
                           std::string_view address,
                           std::uint32_t of_era = 0) const;

  /// Makes void all that was issued so far to nodes called `node`, and all
  /// tokens that were given out: the machine may hold one, which would be good
  /// for any name. On disk when it returns; it gives the whole list, which the
  /// processes of the cluster are to be told. Errors: `node` is no worker's
  /// name, too many were revoked, the list is damaged or cannot be written.
  result<std::vector<protocol::revocation>>
  revoke(const std::string& node) const;

  /// What was revoked so far: the file `directory`/revoked.
  result<std::vector<protocol::revocation>> revoked() const;

  /// The authority's own certificate: PEM, and its SHA-256 in lower-case hex.
  std::string certificate() const;
  std::string fingerprint() const;

  /// A word on `text` that nobody else can make (HMAC-SHA256, lower-case hex).
  /// The key is `directory`/secret (mode 0600), made at first use; removing
  /// that file takes all such words back, and so does `revoke`.
  result<std::string> mac(std::string_view text) const;

private:
  struct keys;

  explicit authority(std::shared_ptr<const keys>);

  std::shared_ptr<const keys> keys_;
};

} // namespace troupe::runtime
