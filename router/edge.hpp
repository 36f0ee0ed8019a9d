#pragma once

#include "router/dispatcher.hpp"
#include "router/exchange.hpp"
#include "router/generation.hpp"
#include "router/metrics.hpp"
#include "router/model_cards.hpp"
#include "router/options.hpp"
#include "router/pooling.hpp"
#include "router/request_guard.hpp"
#include "router/tenants.hpp"
#include "router/tokenization.hpp"
#include "router/waiting_client.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace troupe::router {

/// Where a path leads: an application's route prefix and what follows it.
struct route_place {
  std::string prefix;
  std::string rest; ///< begins with '/'
};

/// The longest route prefix of the table that the path lies under.
std::optional<route_place> locate(const protocol::routing_table&,
                                  std::string_view path);

/// The public side: takes HTTP requests, checks them, and turns generation
/// requests into submissions. Any thread; nothing here blocks a network thread.
class edge {
public:
  /// `io` outlives the edge.
  edge(boost::asio::io_context& io, const options&, std::shared_ptr<dispatcher>,
       std::shared_ptr<wake_queue>, model_cards::fetch);

  void handle(http::request, std::shared_ptr<http::reply>);

  /// A newer routing table; its settings replace those before.
  void take(std::shared_ptr<const protocol::routing_table>);
  std::shared_ptr<const protocol::routing_table> table() const;

  bool ready() const;

  /// From now on requests get 503.
  void stop_admitting() {
    stopping_ = true;
  }

  /// Ends the text threads and whoever waits for a model card or a replica.
  void stop();

  const std::shared_ptr<admission>& admitted() const {
    return admitted_;
  }
  const std::shared_ptr<tenants>& accounts() const {
    return accounts_;
  }
  const std::shared_ptr<metrics>& counters() const {
    return counters_;
  }

private:
  /// What a deployment says about all requests.
  struct rules {
    std::string root_path;
    std::chrono::milliseconds request_timeout{0};
    bool access_log = true;
  };

  /// A request about a model on its way to the replicas, or to an answer of the
  /// model's text side alone.
  struct pending {
    std::shared_ptr<waiting_client> client;
    std::string request_id;
    std::chrono::steady_clock::time_point arrived;
    /// From its arrival; 0 = none.
    std::chrono::milliseconds time_limit{0};
    std::shared_ptr<tenant_account> account;
    std::int32_t priority = 0;
    std::string_view endpoint; ///< one of ours
    std::string prefix;
    std::string session; ///< x-session-id; empty = none
    std::string body;
    std::shared_ptr<const protocol::routing_table> table;
    const protocol::model_route* model = nullptr; ///< in `table`
    std::string card_hash; ///< empty: the last one that was known
    bool found_again = false;
    bool joined = false; ///< its place counts for its model
    std::string wanted;  ///< the model's name, as in the request
    std::variant<any_request, pooled_request, text_request> request;
  };
  using pending_ptr = std::shared_ptr<pending>;

  std::shared_ptr<const rules> current_rules() const;
  void route(const rules&, http::request&, std::unique_ptr<exchange>);
  void health(const http::request&, exchange&) const;
  void models(const std::string& prefix, exchange&) const;
  void model(const std::string& prefix, std::string_view id, exchange&) const;
  api::model_entry entry(const protocol::model_route&) const;
  void begin(std::string_view endpoint, std::string prefix, const rules&,
             http::request&, std::unique_ptr<exchange>);
  bool has_card(const std::string& hash) const;
  std::uint64_t next_turn(const protocol::model_route&);
  void post_text(pending_ptr, std::function<void()>);
  void read(const pending_ptr&);
  static std::optional<api::api_error> parse(pending&);
  static void heed_urgency(pending&, std::int32_t priority,
                           const std::optional<double>& timeout_s);
  void find(const pending_ptr&);
  void wait_to_wake(const pending_ptr&);
  void wake(const protocol::routing_table&);
  std::string card_for(const protocol::model_route&) const;
  void send(const pending_ptr&, const std::shared_ptr<const model_text>&);
  static std::optional<std::chrono::milliseconds> time_left(const pending&);
  generation_context context_of(const pending&) const;
  void send(const pending_ptr&, any_request&,
            const std::shared_ptr<const model_text>&);
  void send(const pending_ptr&, pooled_request&,
            const std::shared_ptr<const model_text>&);
  void send(const pending_ptr&, text_request&,
            const std::shared_ptr<const model_text>&);
  void submit(const pending_ptr&, submission, std::unique_ptr<reply_content>,
              std::uint64_t prompt_tokens);

  boost::asio::io_context& io_;
  const std::uint32_t text_queue_max_;
  std::shared_ptr<dispatcher> replicas_;
  std::shared_ptr<wake_queue> sleepers_;
  std::shared_ptr<admission> admitted_;
  std::shared_ptr<tenants> accounts_ = std::make_shared<tenants>();
  std::shared_ptr<metrics> counters_ = std::make_shared<metrics>();
  mutable std::mutex mutex_;
  std::shared_ptr<const protocol::routing_table> table_;
  std::shared_ptr<const rules> rules_;
  std::atomic<bool> stopping_ = false;
  std::atomic<std::uint32_t> text_queue_ = 0;
  mutable std::atomic<std::size_t> turn_ = 0; ///< whose card is read by next
  std::mutex turns_mutex_;
  /// Requests without a seed so far, of models that have one: by application
  /// and model.
  std::map<std::pair<std::string, std::string>, std::uint64_t> seed_turns_;
  mutable model_cards cards_; ///< health checks may start a fetch
  boost::asio::thread_pool text_;
};

} // namespace troupe::router
