#pragma once

#include "router/dispatcher.hpp"
#include "router/exchange.hpp"
#include "router/held_tokens.hpp"
#include "router/metrics.hpp"
#include "router/reply_content.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace troupe::router {

/// The one bridge from actors to Asio: takes the news of one client request
/// from the router actor and answers the client, all on a strand of its own, so
/// that text is made on Asio's threads. Frames of a stream are made when the
/// client's connection has room for them; till then tokens wait as ids. Ends
/// once: whole answer, finished stream, error, time-out or a client that left;
/// then all its choices are over too.
class reply_stream : public reply_sink,
                     public std::enable_shared_from_this<reply_stream> {
public:
  struct parts {
    std::unique_ptr<exchange> client;
    std::unique_ptr<reply_content> content;
    std::shared_ptr<dispatcher> replicas;
    std::shared_ptr<model_metrics> counters;
    /// From the request's arrival; 0 = none.
    std::chrono::milliseconds time_limit{0};
  };

  reply_stream(boost::asio::io_context&, parts);

  /// Sends the choices off; `what.request` is filled in here.
  void start(submission what);

  // reply_sink, any thread.
  void on_tokens(std::uint32_t choice, protocol::choice_tokens,
                 std::shared_ptr<const protocol::replica_route>) override;
  void on_failed(command::fail) override;

private:
  using strand = boost::asio::strand<boost::asio::io_context::executor_type>;

  void run(std::function<void()>);
  void watch_client();
  void watch_time(std::chrono::milliseconds limit);
  void take(std::uint32_t choice, protocol::choice_tokens, held_tokens::route);
  void stream_on();
  void wait_for_room();
  bool opened();
  void show(const held_tokens::entry&);
  void first_news(const protocol::replica_route&);
  void complete();
  void fail(const api::api_error&);
  void client_gone();
  void end();
  void count_answer();

  strand strand_;
  boost::asio::steady_timer timer_;
  std::unique_ptr<exchange> client_;
  std::unique_ptr<reply_content> answer_;
  std::shared_ptr<dispatcher> replicas_;
  std::shared_ptr<model_metrics> counters_;
  std::chrono::milliseconds time_limit_;
  std::uint64_t request_ = 0;
  std::optional<double> first_token_s_;
  // Of a stream.
  std::uint32_t opened_ = 0; ///< parts of the opening that are out
  held_tokens held_;
  std::optional<api::api_error> failed_; ///< comes behind what is held
  bool room_awaited_ = false;
  bool ended_ = false;
};

/// What a client is told of an error behind the edge; all of it, if there is an
/// incident to name.
api::api_error client_error(const error&, const std::string& incident = {});

} // namespace troupe::router
