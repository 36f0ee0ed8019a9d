#include "actors/runtime/token.hpp"

#include "actors/runtime/sha256.hpp"
#include "actors/runtime/token_format.hpp"

namespace troupe::runtime {

namespace {

constexpr std::chrono::seconds good_for_max = std::chrono::hours{366 * 24};

/// What the MAC is made of. The first words keep it apart from MACs for other
/// ends.
result<std::string> mac_of(const authority& issuer, std::uint64_t expires) {
  return issuer.mac("join token 1 " + issuer.fingerprint() + " " +
                    std::to_string(expires));
}

} // namespace

std::uint64_t seconds_now() {
  using namespace std::chrono;
  auto now = system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(duration_cast<seconds>(now).count());
}

result<join_token> create_token(const authority& issuer,
                                std::chrono::seconds good_for) {
  if (good_for < std::chrono::seconds{1} || good_for > good_for_max)
    return error{errc::invalid_argument,
                 "a token is good for 1 second to 366 days"};
  join_token out;
  out.authority_hash = issuer.fingerprint();
  out.expires = seconds_now() + static_cast<std::uint64_t>(good_for.count());
  auto mac = mac_of(issuer, out.expires);
  if (!mac)
    return mac.error();
  out.text = write_token_parts({out.authority_hash, out.expires, *mac});
  return out;
}

result<join_token> read_token(const std::string& text) {
  auto parts = read_token_parts(text);
  if (!parts)
    return parts.error();
  return join_token{parts->authority_hash, parts->expires, text};
}

result<void> check_token(const authority& issuer, const std::string& text,
                         std::uint64_t now) {
  auto parts = read_token_parts(text);
  if (!parts)
    return parts.error();
  if (parts->authority_hash != issuer.fingerprint())
    return error{errc::invalid_argument, "the token is of another cluster"};
  auto mac = mac_of(issuer, parts->expires);
  if (!mac)
    return mac.error();
  if (!equal_secrets(*mac, parts->mac))
    return error{errc::invalid_argument,
                 "the token is damaged, or was taken back (revoking a node "
                 "takes all of before back); get a new one with \"troupe token "
                 "create\" on the head"};
  // The head's clock both gave it out and reads it now.
  if (now > parts->expires)
    return error{errc::invalid_argument,
                 "the token has expired; get a new one with \"troupe token "
                 "create\" on the head"};
  return {};
}

} // namespace troupe::runtime
