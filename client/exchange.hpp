#pragma once

#include "client/service_url.hpp"
#include "engine/codec/error.hpp"

#include <boost/asio/awaitable.hpp>

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace troupe::client {

/// A request to a service.
struct call {
  std::string method = "POST";
  std::string path;    ///< below the service's own, "/v1/chat/completions"
  std::string body;    ///< JSON; none if empty
  std::string api_key; ///< sent as a bearer token; none if empty
};

struct exchange_limits {
  std::chrono::seconds connect_max{10};
  std::chrono::seconds silence_max{300}; ///< between two pieces of the answer
};

/// What came back. Of an event stream only what was not an event is in `body`.
struct answer {
  int status = 0;
  std::string body;
  bool done = false; ///< an event stream ended as it should, with [DONE]
};

/// One request on a connection of its own; `on_event` hears the data of each
/// event of a streamed answer, but for [DONE], when it comes. Errors: nobody
/// there, no trust in its certificate, silence, an answer that is cut off.
/// Runs on the executor that awaits it and ends with that.
boost::asio::awaitable<result<answer>>
exchange(const service_url&, const call&,
         std::function<void(std::string_view data)> on_event,
         exchange_limits = {});

/// The same for one who has nothing else to do: blocks.
result<answer> exchange_now(const service_url&, const call&,
                            exchange_limits = {});

/// The sentence of an answer that is not 2xx: what its body says, or its
/// status.
std::string reason_of(const answer&);

} // namespace troupe::client
