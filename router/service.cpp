#include "router/service.hpp"

#include "actors/runtime/blob_listener.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "router/admin.hpp"
#include "router/edge.hpp"
#include "router/router_actor.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <caf/actor_system.hpp>
#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <spdlog/spdlog.h>

#include <optional>
#include <random>
#include <thread>

namespace troupe::router {

namespace {

using namespace std::chrono_literals;

/// For the errors that end what is under way at the deadline, and for the last
/// bytes of answers, to reach their sockets.
constexpr auto farewell_max = 1s;
constexpr auto actor_end_max = 10s;

std::uint64_t random_number() {
  std::random_device random;
  return (std::uint64_t{random()} << 32) | random();
}

std::pair<std::string, std::string> layer_error(int status,
                                                std::string_view sentence) {
  return {
      "application/json",
      api::error_body({status, std::string{sentence},
                       status < 500 ? "invalid_request_error" : "server_error",
                       "", ""})};
}

model_cards::fetch fetch_over_tls(const options& from) {
  return [tls = from.tls, limit = from.card_time](
             const protocol::endpoint& where, const std::string& hash) {
    return runtime::fetch_blob(where, hash, tls, limit);
  };
}

class running_service : public service {
public:
  running_service(const options& from, caf::actor_system& system,
                  replica_access access)
      : options_(from), system_(system),
        connect_(access.connect ? std::move(access.connect)
                                : connect_over_tls()),
        edge_(std::make_shared<edge>(io_, from, replicas_,
                                     access.fetch_card
                                         ? std::move(access.fetch_card)
                                         : fetch_over_tls(from))),
        admin_(*edge_, from.loads, gauges_) {
    // nop
  }

  ~running_service() override {
    stop(0ms);
  }

  std::optional<error> listen(const protocol::controller_actor& controller) {
    start_actor();
    auto started =
        start_server(options_.host, options_.port, public_,
                     [this](http::request request, auto reply) {
                       edge_->handle(std::move(request), std::move(reply));
                     });
    if (!started)
      started = start_server(options_.admin_host, options_.admin_port,
                             operators_, [this](http::request request, auto r) {
                               admin_.handle(std::move(request), std::move(r));
                             });
    if (started)
      return started;
    for (std::uint32_t i = 0; i < options_.io_threads; ++i)
      threads_.emplace_back([this] { run(); });
    if (controller)
      caf::anon_send(controller, protocol::watch_atom::value,
                     protocol::table_sink_actor{actor_});
    return std::nullopt;
  }

  std::uint16_t port() const override {
    return public_->port();
  }

  std::uint16_t admin_port() const override {
    return operators_->port();
  }

  protocol::router_actor actor() const override {
    return actor_;
  }

  void add_admin_route(std::string method, std::string path,
                       http::handler how) override {
    admin_.add(std::move(method), std::move(path), std::move(how));
  }

  bool ready() const override {
    return edge_->ready();
  }

  bool stop(std::chrono::milliseconds deadline) override {
    if (stopped_)
      return true;
    stopped_ = true;
    edge_->stop_admitting();
    if (public_)
      public_->stop_accepting();
    auto clean = edge_->admitted()->wait_empty(deadline);
    replicas_->close({errc::unavailable, "The server is shutting down."});
    edge_->stop();
    if (!threads_.empty())
      wait_for_last_bytes();
    if (public_)
      public_->close();
    if (operators_)
      operators_->close();
    end_actor();
    work_.reset();
    io_.stop();
    for (auto& thread : threads_)
      thread.join();
    return clean;
  }

private:
  void start_actor() {
    router_arguments args;
    args.incarnation = random_number();
    args.limits = options_.table;
    args.attach_time = options_.attach_time;
    args.random_seed = random_number();
    args.inbox = replicas_;
    args.connect = connect_;
    args.on_table = [weak = std::weak_ptr{edge_}](auto table) {
      if (auto target = weak.lock())
        target->take(std::move(table));
    };
    actor_ = system_.spawn(router_actor, std::move(args), gauges_);
  }

  std::optional<error> start_server(const std::string& host, std::uint16_t port,
                                    std::unique_ptr<http::server>& place,
                                    http::handler how) {
    http::server_options some;
    some.host = host;
    some.port = port;
    some.bounds = options_.bounds;
    some.error_body = layer_error;
    auto started = http::server::start(io_, std::move(some), std::move(how));
    if (!started)
      return started.error();
    place = std::move(*started);
    return std::nullopt;
  }

  // What a handler throws (memory) must not end the thread.
  void run() {
    for (;;) {
      try {
        io_.run();
        return;
      } catch (const std::exception& e) {
        spdlog::error("router: {}", e.what());
      }
    }
  }

  void wait_for_last_bytes() {
    edge_->admitted()->wait_empty(farewell_max);
    auto end = std::chrono::steady_clock::now() + farewell_max;
    while (public_->requests_in_flight() != 0 &&
           std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(5ms);
  }

  void end_actor() {
    if (!actor_)
      return;
    if (!runtime::stop_actor(system_, actor_, actor_end_max))
      spdlog::error("router: the actor does not end");
    actor_ = nullptr;
  }

  const options options_;
  caf::actor_system& system_;
  const connect_replica connect_;
  boost::asio::io_context io_;
  std::optional<
      boost::asio::executor_work_guard<boost::asio::io_context::executor_type>>
      work_{boost::asio::make_work_guard(io_)};
  std::shared_ptr<dispatcher> replicas_ = std::make_shared<dispatcher>();
  std::shared_ptr<router_gauges> gauges_ = std::make_shared<router_gauges>();
  std::shared_ptr<edge> edge_;
  admin admin_;
  std::unique_ptr<http::server> public_;
  std::unique_ptr<http::server> operators_;
  std::vector<std::thread> threads_;
  local_router_actor actor_;
  bool stopped_ = false;
};

} // namespace

result<std::unique_ptr<service>>
service::start(options from, caf::actor_system& system,
               protocol::controller_actor controller, replica_access access) {
  auto made =
      std::make_unique<running_service>(from, system, std::move(access));
  if (auto wrong = made->listen(controller))
    return *wrong;
  return std::unique_ptr<service>{std::move(made)};
}

} // namespace troupe::router
