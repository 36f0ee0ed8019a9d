#pragma once

#include "router/http/server.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What is looked at before a request is: who asks, from where, under what
/// name.
namespace troupe::router {

/// The configured keys, kept as hashes.
class api_keys {
public:
  explicit api_keys(const std::vector<std::string>& keys);

  /// The place of the key that the request bears in its one Authorization
  /// field; nothing if it is none of them. Takes the same time for every key.
  std::optional<std::size_t> find(const http::request&) const;

private:
  using digest = std::array<unsigned char, 32>;

  static digest hash(std::string_view);

  std::vector<digest> keys_;
};

/// The client's x-request-id if it is 1 to 128 visible ASCII characters, else
/// a random one.
std::string request_id_of(const http::request&);

/// False if a browser says that a page of another origin sent this (Origin and
/// Host differ).
bool same_origin(const http::request&);

/// True for hosts that no DNS rebinding can make: numeric addresses, localhost,
/// the machine's own name, with or without its domain. May have a port.
bool is_local_name(std::string_view host);

bool is_json(const http::request&);

} // namespace troupe::router
