#include "actors/runtime/token_format.hpp"

#include "actors/runtime/sha256.hpp"

#include <algorithm>
#include <charconv>

namespace troupe::runtime {

namespace {

constexpr std::string_view kind = "troupe1";

/// Takes the text up to the next full stop away from `rest`.
std::string_view next_word(std::string_view& rest) {
  auto word = rest.substr(0, rest.find('.'));
  rest.remove_prefix(std::min(rest.size(), word.size() + 1));
  return word;
}

} // namespace

std::string write_token_parts(const token_parts& x) {
  return std::string{kind} + "." + x.authority_hash + "." +
         std::to_string(x.expires) + "." + x.mac;
}

result<token_parts> read_token_parts(std::string_view text) {
  auto rest = text;
  if (next_word(rest) != kind)
    return error{errc::invalid_argument,
                 "not a token: one begins with \"troupe1.\""};
  token_parts out;
  out.authority_hash = next_word(rest);
  auto time = next_word(rest);
  std::from_chars(time.data(), time.data() + time.size(), out.expires);
  out.mac = rest;
  if (!is_sha256_hex(out.authority_hash) || !is_sha256_hex(out.mac) ||
      write_token_parts(out) != text)
    return error{errc::invalid_argument,
                 "the token is damaged; was it copied as a whole?"};
  return out;
}

} // namespace troupe::runtime
