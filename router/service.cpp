#include "router/service.hpp"

#include "actors/runtime/blob_listener.hpp"
#include "actors/runtime/log.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "router/admin.hpp"
#include "router/edge.hpp"
#include "router/router_actor.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <caf/actor_system.hpp>
#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>

#include <algorithm>
#include <mutex>
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

/// The listener that is there or not. Any thread.
class public_side {
public:
  public_side(boost::asio::io_context& io, http::server_options first,
              http::handler how)
      : io_(io), options_(std::move(first)), how_(std::move(how)) {
    // nop
  }

  result<void> open() {
    std::lock_guard one_at_a_time{changing_};
    if (server())
      return {};
    http::server_options some;
    {
      std::lock_guard lock{mutex_};
      some = options_;
    }
    auto started = http::server::start(io_, std::move(some), how_);
    if (!started)
      return started.error();
    std::lock_guard lock{mutex_};
    server_ = std::move(*started);
    server_->set_keep_alive(options_.bounds.keep_alive);
    port_ = server_->port();
    return {};
  }

  void close(std::chrono::milliseconds deadline) {
    std::lock_guard one_at_a_time{changing_};
    auto closing = server();
    if (!closing)
      return;
    {
      std::lock_guard lock{mutex_};
      server_.reset();
    }
    auto end = std::chrono::steady_clock::now() + deadline;
    closing->stop_accepting();
    wait_for_answers(*closing, end);
    closing->close();
    // So that the port can be listened on again at once.
    end = std::chrono::steady_clock::now() + farewell_max;
    while (closing->listening() && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(1ms);
  }

  void stop_accepting() {
    if (auto now = server())
      now->stop_accepting();
  }

  void wait_for_last_bytes() {
    if (auto now = server())
      wait_for_answers(*now, std::chrono::steady_clock::now() + farewell_max);
  }

  void set_keep_alive(std::chrono::milliseconds idle_max) {
    std::lock_guard lock{mutex_};
    options_.bounds.keep_alive = idle_max;
    if (server_)
      server_->set_keep_alive(idle_max);
  }

  bool is_open() const {
    return server() != nullptr;
  }

  std::uint16_t port() const {
    std::lock_guard lock{mutex_};
    return port_;
  }

private:
  std::shared_ptr<http::server> server() const {
    std::lock_guard lock{mutex_};
    return server_;
  }

  static void wait_for_answers(const http::server& from,
                               std::chrono::steady_clock::time_point end) {
    while (from.requests_in_flight() != 0 &&
           std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(5ms);
  }

  boost::asio::io_context& io_;
  std::mutex changing_; // held while it is opened or closed
  mutable std::mutex mutex_;
  http::server_options options_;
  const http::handler how_;
  std::shared_ptr<http::server> server_;
  std::uint16_t port_ = 0; // the last one
};

class running_service : public service {
public:
  running_service(const options& from, caf::actor_system& system,
                  replica_access access)
      : options_(from), system_(system),
        connect_(access.connect ? std::move(access.connect)
                                : connect_over_tls()),
        sleepers_(std::make_shared<wake_queue>(from.wake)),
        edge_(std::make_shared<edge>(io_, from, replicas_, sleepers_,
                                     access.fetch_card
                                         ? std::move(access.fetch_card)
                                         : fetch_over_tls(from))),
        admin_(*edge_, from.loads, gauges_),
        public_(std::make_shared<public_side>(
            io_, server_at(from.host, from.port),
            [this](http::request request, auto reply) {
              edge_->handle(std::move(request), std::move(reply));
            })) {
    // nop
  }

  ~running_service() override {
    stop(0ms);
  }

  result<void> begin() {
    auto started = http::server::start(
        io_, server_at(options_.admin_host, options_.admin_port),
        [this](http::request request, auto reply) {
          admin_.handle(std::move(request), std::move(reply));
        });
    if (!started)
      return started.error();
    operators_ = std::move(*started);
    start_actor();
    for (std::uint32_t i = 0; i < options_.io_threads; ++i)
      threads_.emplace_back([this] { run(); });
    return {};
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

  result<void> open_public() override {
    if (stopped_)
      return error{errc::unavailable, "The server is shutting down."};
    return public_->open();
  }

  void close_public(std::chrono::milliseconds deadline) override {
    public_->close(deadline);
  }

  bool ready() const override {
    return public_->is_open() && edge_->ready();
  }

  bool stop(std::chrono::milliseconds deadline) override {
    if (stopped_.exchange(true))
      return true;
    edge_->stop_admitting();
    public_->stop_accepting();
    auto clean = edge_->admitted()->wait_empty(deadline);
    replicas_->close({errc::unavailable, "The server is shutting down."});
    edge_->stop();
    edge_->admitted()->wait_empty(farewell_max);
    public_->wait_for_last_bytes();
    public_->close(0ms);
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
    args.sleepers = sleepers_;
    args.accounts = edge_->accounts();
    args.connect = connect_;
    args.on_table = [requests = std::weak_ptr{edge_},
                     listener = std::weak_ptr{public_}](auto table) {
      if (auto to = listener.lock())
        to->set_keep_alive(
            std::chrono::milliseconds{table->settings.keep_alive_ms});
      if (auto to = requests.lock())
        to->take(std::move(table));
    };
    actor_ = system_.spawn(router_actor, std::move(args), gauges_);
  }

  http::server_options server_at(const std::string& host,
                                 std::uint16_t port) const {
    http::server_options some;
    some.host = host;
    some.port = port;
    some.bounds = options_.bounds;
    some.error_body = layer_error;
    return some;
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
  std::shared_ptr<wake_queue> sleepers_;
  std::shared_ptr<edge> edge_;
  admin admin_;
  std::shared_ptr<public_side> public_;
  std::unique_ptr<http::server> operators_;
  std::vector<std::thread> threads_;
  local_router_actor actor_;
  std::atomic<bool> stopped_ = false;
};

} // namespace

result<std::unique_ptr<service>>
service::start(options from, caf::actor_system& system, replica_access access) {
  auto made =
      std::make_unique<running_service>(from, system, std::move(access));
  if (auto begun = made->begin(); !begun)
    return begun.error();
  return std::unique_ptr<service>{std::move(made)};
}

} // namespace troupe::router
