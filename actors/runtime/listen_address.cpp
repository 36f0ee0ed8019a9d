#include "actors/runtime/listen_address.hpp"

#include <boost/asio/ip/address.hpp>

namespace troupe::runtime {

namespace {

bool is_every_address(const boost::asio::ip::address& ip) {
  if (ip.is_v6() && ip.to_v6().is_v4_mapped())
    return boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped,
                                            ip.to_v6())
        .is_unspecified();
  return ip.is_unspecified();
}

} // namespace

result<void> check_listen_address(const std::string& address) {
  boost::system::error_code failed;
  auto ip = boost::asio::ip::make_address(address, failed);
  if (failed)
    return error{errc::invalid_argument, "cannot listen on \"" + address +
                                             "\": it is not a numeric address"};
  if (is_every_address(ip))
    return error{errc::invalid_argument,
                 "a port of the cluster does not listen on " + address +
                     "; name the address at which other nodes reach this one"};
  return {};
}

} // namespace troupe::runtime
