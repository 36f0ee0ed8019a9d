#pragma once

#include "actors/protocol/routing_table.hpp"
#include "router/model_text.hpp"

#include <boost/asio/thread_pool.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace troupe::router {

/// The text sides of the models in the routing table, each fetched from one of
/// its replicas and compiled once per card hash, on a thread of its own. Holds
/// those of listed replicas, and of each model the last one known. Any thread.
class model_cards {
public:
  /// Gets a card by its hash from a replica's process; may block for a bounded
  /// time. What it returns has that hash.
  using fetch = std::function<result<std::string>(const protocol::endpoint&,
                                                  const std::string& hash)>;
  using text_result = result<std::shared_ptr<const model_text>>;
  using ready = std::function<void(text_result)>;

  explicit model_cards(fetch);
  ~model_cards();

  /// Starts to load what is new in the table and drops what has left it.
  void follow(const protocol::routing_table&);

  /// Calls back at once if the card is there or known to be bad, else when it
  /// is, on the loading thread. A card that could not be fetched is tried again
  /// a second later at the earliest. Every call is answered.
  void get(const std::string& hash, ready);

  /// Null until it is there.
  std::shared_ptr<const model_text> find(const std::string& hash) const;

  /// The last card of a model; null until it is there.
  std::shared_ptr<const model_text> find(const std::string& application,
                                         const std::string& model) const;

  /// Answers who waits, and ends the thread once a fetch under way has ended.
  void stop();

private:
  using model_key = std::pair<std::string, std::string>;

  struct card {
    std::vector<protocol::endpoint> replicas;
    text_result text = error{errc::unavailable, "The model card is not here."};
    bool loading = false;
    bool done = false; // text stays as it is
    std::chrono::steady_clock::time_point retry_at;
    std::vector<ready> waiting;
  };

  void load(const std::string& hash, card&);
  text_result fetch_and_make(const std::string& hash,
                             const std::vector<protocol::endpoint>&);
  void loaded(const std::string& hash, text_result);

  fetch fetch_;
  mutable std::mutex mutex_;
  std::map<std::string, card> cards_; // by hash
  std::map<model_key, std::string> hashes_;
  bool stopped_ = false;
  boost::asio::thread_pool loader_{1};
};

} // namespace troupe::router
