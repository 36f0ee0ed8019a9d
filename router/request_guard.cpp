#include "router/request_guard.hpp"

#include <boost/algorithm/string/predicate.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/host_name.hpp>
#include <boost/uuid/random_generator.hpp>
#include <boost/uuid/uuid_io.hpp>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

namespace troupe::router {

namespace {

using boost::algorithm::iequals;

constexpr std::size_t request_id_max = 128;

std::string_view trimmed(std::string_view text) {
  auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos)
    return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// The key of the one Authorization field; nothing if there is none or more
/// than one, or if it is not a bearer's.
std::optional<std::string_view> bearer_key(const http::request& request) {
  std::optional<std::string_view> key;
  for (auto& [name, value] : request.headers) {
    if (!iequals(name, "authorization"))
      continue;
    if (key)
      return std::nullopt;
    constexpr std::string_view scheme = "bearer ";
    std::string_view text = value;
    if (!iequals(text.substr(0, scheme.size()), scheme))
      return std::nullopt;
    key = trimmed(text.substr(scheme.size()));
  }
  return key;
}

bool is_this_machine(std::string_view host) {
  boost::system::error_code wrong;
  auto name = boost::asio::ip::host_name(wrong);
  return !wrong && !host.empty() &&
         (iequals(host, name) || iequals(host, name.substr(0, name.find('.'))));
}

} // namespace

api_keys::api_keys(const std::vector<std::string>& keys) {
  for (auto& key : keys)
    keys_.push_back(hash(key));
}

std::optional<std::size_t> api_keys::find(const http::request& request) const {
  auto key = bearer_key(request);
  if (!key)
    return std::nullopt;
  auto given = hash(*key);
  auto place = keys_.size();
  for (std::size_t i = 0; i < keys_.size(); ++i)
    if (CRYPTO_memcmp(keys_[i].data(), given.data(), given.size()) == 0)
      place = i;
  if (place == keys_.size())
    return std::nullopt;
  return place;
}

api_keys::digest api_keys::hash(std::string_view text) {
  digest out;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         out.data());
  return out;
}

std::string request_id_of(const http::request& request) {
  auto given = request.header("x-request-id");
  auto visible = [](char c) { return c > 0x20 && c < 0x7f; };
  if (!given.empty() && given.size() <= request_id_max &&
      std::all_of(given.begin(), given.end(), visible))
    return std::string{given};
  thread_local boost::uuids::random_generator generate;
  return boost::uuids::to_string(generate());
}

bool same_origin(const http::request& request) {
  auto origin = request.header("origin");
  if (origin.empty())
    return true;
  auto scheme = origin.find("://");
  return scheme != std::string_view::npos &&
         iequals(origin.substr(scheme + 3), request.header("host"));
}

bool is_local_name(std::string_view host) {
  if (!host.empty() && host.front() == '[')
    host = host.substr(1, host.find(']') - 1);
  else
    host = host.substr(0, host.find(':'));
  boost::system::error_code wrong;
  boost::asio::ip::make_address(std::string{host}, wrong);
  return !wrong || iequals(host, "localhost") || is_this_machine(host);
}

bool is_json(const http::request& request) {
  auto type = request.header("content-type");
  return iequals(trimmed(type.substr(0, type.find(';'))), "application/json");
}

} // namespace troupe::router
