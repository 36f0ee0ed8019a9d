#pragma once

#include "actors/protocol/request_record.hpp"
#include "actors/protocol/routing_table.hpp"
#include "actors/protocol/token_batch.hpp"
#include "engine/codec/error.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::router {

using time_point = std::chrono::steady_clock::time_point;

/// Bounds of a request table.
struct table_limits {
  std::size_t choices_max = 8192; ///< in the table, waiting or sent
  /// Prompt tokens of all choices in the table (each keeps its own).
  std::size_t prompt_tokens_max = 32u << 20;
  std::size_t waiting_max = 1024; ///< of one model, before a new one is refused
  /// The same for single models, by application and model.
  std::map<std::pair<std::string, std::string>, std::size_t> waiting_max_of;
  /// From submission; then a choice that no replica took fails.
  std::chrono::milliseconds wait_max{30'000};
  /// Replicas that may be lost, or refuse, under a choice without a token.
  std::uint32_t attempts_max = 3;
  /// Pause before attaching to a lost replica again; doubles up to the second.
  std::chrono::milliseconds attach_pause{100};
  std::chrono::milliseconds attach_pause_max{5'000};
  /// A replica that refused a choice as unavailable gets none for so long.
  std::chrono::milliseconds rest{1'000};
};

/// The choices of one client request.
struct submission {
  std::uint64_t request = 0; ///< unique within the router's life
  std::string application;
  std::string model;
  /// By choice index; `id` is given by the table, a new one for each sending.
  std::vector<protocol::request_record> choices;
};

/// What the shell around the table has to do, in this order.
namespace command {

/// Connect and open a session; answer with attached() or attach_failed().
struct attach {
  protocol::endpoint where;
};

/// Close the session; nothing is outstanding there.
struct detach {
  std::uint64_t incarnation = 0;
};

struct generate {
  std::uint64_t incarnation = 0; ///< the replica's
  protocol::request_record record;
};

struct cancel {
  std::uint64_t incarnation = 0;
  std::uint64_t id = 0; ///< request_record::id
};

/// News of a choice; the last of it when `news.reason` is stop or length.
struct deliver {
  std::uint64_t request = 0;
  std::uint32_t choice = 0;
  protocol::choice_tokens news;
  std::shared_ptr<const protocol::replica_route> from;
};

/// The end of all choices of a request that had not ended.
struct fail {
  std::uint64_t request = 0;
  error what;
};

/// The request has left the table: nothing about it follows.
struct release {
  std::uint64_t request = 0;
};

} // namespace command

using any_command =
    std::variant<command::attach, command::detach, command::generate,
                 command::cancel, command::deliver, command::fail,
                 command::release>;
using command_list = std::vector<any_command>;

/// All requests in flight of one router, as a pure state machine: an event and
/// the time go in, commands come out. No clock, no threads, no messages.
///
/// Every choice ends exactly once: with a `deliver` whose reason is stop or
/// length, or with a `fail` of its request; or silently, when it was cancelled.
/// A choice without a token moves to another replica when its own is lost, or
/// waits; one with tokens fails its request. (The record keeps the ids
/// received, so continuing it elsewhere needs nothing but another rule in
/// `give_back`.)
class request_table {
public:
  request_table(table_limits, std::uint64_t random_seed);

  // Events.
  command_list submit(submission, time_point now);
  command_list tokens(protocol::token_batch, time_point now);
  command_list attached(std::uint64_t incarnation, time_point now);
  command_list attach_failed(std::uint64_t incarnation, time_point now);
  command_list lost(std::uint64_t incarnation, time_point now);
  /// Ignored unless newer than the one before.
  command_list route_by(const protocol::routing_table&, time_point now);
  /// The client is gone.
  command_list cancel_request(std::uint64_t request, time_point now);
  /// The rest of this choice is not wanted (a stop string completed).
  command_list cancel_choice(std::uint64_t request, std::uint32_t choice,
                             time_point now);
  command_list tick(time_point now);
  /// Ends everything (shutdown).
  command_list fail_all(const error&, time_point now);

  /// When `tick` has something to do; nothing = not before another event.
  std::optional<time_point> next_deadline() const;

  // For metrics and tests.
  std::size_t requests() const {
    return requests_.size();
  }
  std::size_t choices_waiting() const;
  std::size_t choices_sent() const {
    return sent_.size();
  }
  std::size_t prompt_tokens() const {
    return prompt_tokens_;
  }
  /// Choices at this replica; 0 if it is not known.
  std::size_t outstanding(std::uint64_t incarnation) const;

private:
  using model_key = std::pair<std::string, std::string>; // application, model

  struct choice_key {
    std::uint64_t request = 0;
    std::uint32_t choice = 0;
  };

  struct choice_state {
    protocol::request_record record;
    std::uint64_t incarnation = 0; // 0 = at no replica
    std::uint64_t cost = 0;        // its part of replica_state::tokens
    std::uint32_t attempts = 0;
    bool started = false;
    bool open = true;
  };

  struct request_state {
    model_key model;
    time_point since;
    std::size_t open = 0;
    std::vector<choice_state> choices;
  };

  enum class link_phase {
    connecting,
    attached,
    resting, // attached, but it refused a choice
    pausing, // lost; connects again at retry_at
  };

  struct replica_state {
    std::shared_ptr<const protocol::replica_route> route;
    model_key model;
    link_phase phase = link_phase::connecting;
    bool listed = true;
    std::set<std::uint64_t> sent;
    std::uint64_t tokens = 0;
    std::chrono::milliseconds pause{0};
    time_point retry_at;
  };

  struct waiting_choice {
    time_point since;
    choice_key key;
  };

  struct model_state {
    bool listed = true;
    std::vector<std::uint64_t> replicas; // incarnations, listed ones
    std::deque<waiting_choice> waiting;  // oldest first
  };

  std::size_t waiting_max(const model_key&) const;
  choice_state* find(choice_key);
  void enqueue(choice_key, time_point since);
  void pump(const model_key&, command_list&);
  void send(choice_key, std::uint64_t incarnation, command_list&);
  void take(choice_key, protocol::choice_tokens, time_point, replica_state&,
            command_list&);
  void refused(choice_key, const error&, time_point, replica_state&,
               command_list&);
  void give_back(choice_key, const error&, command_list&);
  void unlink(choice_state&);
  void leave(choice_state&);
  void close(choice_key, command_list&);
  void fail_request(std::uint64_t request, const error&, command_list&);
  void drop_request(std::uint64_t request, command_list&);
  void list_replica(const protocol::replica_route&, const model_key&,
                    command_list&);
  void drop_unlisted(command_list&);
  void link_down(std::uint64_t incarnation, time_point, command_list&);
  void expire_waiting(time_point, command_list&);

  table_limits limits_;
  std::mt19937_64 random_;
  std::uint64_t version_ = 0;
  std::uint64_t last_id_ = 0;
  std::size_t choices_ = 0;       // open ones
  std::size_t prompt_tokens_ = 0; // theirs
  std::map<std::uint64_t, request_state> requests_;
  std::map<std::uint64_t, choice_key> sent_;        // by record id
  std::map<std::uint64_t, replica_state> replicas_; // by incarnation
  std::map<model_key, model_state> models_;
};

} // namespace troupe::router
