#include "actors/runtime/resolve.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <future>
#include <memory>
#include <thread>

namespace troupe::runtime {

using boost::asio::ip::tcp;
using addresses = std::vector<boost::asio::ip::address>;

result<addresses> resolve(const std::string& host,
                          std::chrono::steady_clock::time_point deadline) {
  boost::system::error_code failed;
  auto numeric = boost::asio::ip::make_address(host, failed);
  if (!failed)
    return addresses{numeric};
  auto promise = std::make_shared<std::promise<addresses>>();
  auto found = promise->get_future();
  std::thread{[promise, host] {
    boost::asio::io_context io;
    boost::system::error_code unknown;
    addresses out;
    auto entries = tcp::resolver{io}.resolve(host, "", unknown);
    for (auto i = entries.begin(); i != entries.end(); ++i)
      out.push_back(i->endpoint().address());
    promise->set_value(std::move(out));
  }}.detach();
  if (found.wait_until(deadline) != std::future_status::ready)
    return error{errc::unavailable, "the name is not found in time"};
  auto out = found.get();
  if (out.empty())
    return error{errc::unavailable, "no such host"};
  return out;
}

} // namespace troupe::runtime
