#pragma once

#include "engine/codec/error.hpp"

#include <boost/asio/ip/address.hpp>

#include <chrono>
#include <string>
#include <vector>

namespace troupe::runtime {

/// Addresses of a host, numeric or by name; one at least. The system's resolver
/// cannot be stopped, so one that takes too long ends by itself, later.
result<std::vector<boost::asio::ip::address>>
resolve(const std::string& host,
        std::chrono::steady_clock::time_point deadline);

} // namespace troupe::runtime
