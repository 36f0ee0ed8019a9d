#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/load_messages.hpp"
#include "actors/protocol/request_record.hpp"
#include "actors/protocol/routing_table.hpp"
#include "actors/protocol/token_batch.hpp"
#include "engine/codec/error.hpp"
#include "router/policy/choice_rate.hpp"
#include "router/policy/replica_chooser.hpp"
#include "router/policy/replica_health.hpp"
#include "router/policy/replica_pace.hpp"
#include "router/policy/retry_budget.hpp"
#include "router/policy/saturated_rate.hpp"
#include "router/suspects.hpp"
#include "router/waiting_room.hpp"

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
  /// Of one model, before a new one is refused; a model of the routing table
  /// may have another bound.
  std::size_t waiting_max = 1024;
  /// From submission, or from the loss of its replica; then a choice fails that
  /// no replica could take, were it only for lack of room.
  std::chrono::milliseconds wait_max{30'000};
  /// How long the choices of a lost replica wait for a word on why it died.
  std::chrono::milliseconds notice_wait{300};
  /// Sendings of one choice beyond its first; then it fails.
  std::uint32_t moves_max = 64;
  /// Replicas lost without a word on why: after so many a choice without a
  /// token fails, and one with tokens is computed alone.
  std::uint32_t unexplained_max = 3;
  /// Tokens after which a suspect is one no more. Where an equal request ended
  /// a replica later than that, so many that it is past the place, at most.
  std::uint32_t trial_tokens = protocol::alone_tokens;
  std::uint32_t trial_tokens_max = 32;
  /// For how long a request that ended replicas is refused, and how many such.
  std::chrono::milliseconds ban_time{600'000};
  std::size_t bans_max = 1024;
  /// For how long a request that may have ended a replica is tried alone.
  std::chrono::milliseconds suspicion_time{600'000};
  std::size_t notices_max = 1024;  ///< death notices kept
  std::size_t given_up_max = 4096; ///< sendings kept that were given up
  /// Pause before attaching to a lost replica again; doubles up to the second.
  std::chrono::milliseconds attach_pause{100};
  std::chrono::milliseconds attach_pause_max{5'000};
  /// A replica that refused a choice as unavailable gets none for so long.
  std::chrono::milliseconds rest{1'000};
  /// What took longer until a choice's first news, or until the next, counts as
  /// so long where the speed of choices is measured.
  std::chrono::milliseconds first_news_max{10'000};
  std::chrono::milliseconds news_max{2'000};
  /// What other routers hold is not known any more so long after the last word.
  std::chrono::milliseconds others_max{3'000};
};

/// The choices of one client request.
struct submission {
  std::uint64_t request = 0; ///< unique within the router's life
  std::string application;
  std::string model;
  /// The model card that the prompts' ids were made by: choices go to replicas
  /// that have it while one is listed, else to any. Empty = any.
  std::string card_hash;
  /// By choice index; `id` is given by the table, a new one for each sending.
  std::vector<protocol::request_record> choices;
  std::string session = {}; ///< as the client names it; empty = not
  std::string tenant = {};  ///< whose it is, by its API key
  double weight = 1;        ///< the tenant's, above 0
  /// Of the tenant's, so many at one replica at once; 0 = no limit. Streams
  /// that have begun go on past it.
  std::uint32_t choices_per_replica = 0;
  std::int32_t priority = 0; ///< lower ones go first
  /// It is not taken if it cannot be served in that time, and leaves the queue
  /// after it.
  std::chrono::milliseconds time_limit{600'000};
  bool has_limit = false; ///< somebody set it
};

/// What the shell around the table has to do, in this order.
namespace command {

/// Connect and open a session; answer with attached() or attach_failed().
struct attach {
  protocol::endpoint where;
};

/// Close the session; nothing is outstanding there any more.
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

/// News of a choice; the last of it when `news.reason` is stop or length. All
/// that was delivered of a choice is, in order, what one replica that is never
/// lost would have given.
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
  /// Set if the request ended replicas: 16 hex digits, for the client and the
  /// log. Then `what` holds nothing that the client may not read.
  std::string incident = {};
  std::uint32_t retry_after_s = 0; ///< 0 = nothing to say about it
};

/// For the log: a choice was sent to another replica with its output so far,
/// ahead of the `generate` that does it.
struct moved {
  std::string request_id;
  std::uint32_t choice = 0;
  std::size_t tokens = 0;              ///< so far
  std::string to;                      ///< the replica's name
  std::chrono::milliseconds waited{0}; ///< since it was lost or refused
  bool alone = false;
  bool class_changed = false; ///< its tokens are of another arithmetic class
};

/// For the log: a replica died by its own fault while it computed this choice.
struct suspected {
  std::string request_id;
  std::uint32_t choice = 0;
  std::string reason; ///< of the death
};

/// For the log: the request ended replicas, and is refused from now on.
struct convicted {
  std::string request_id;
  std::string incident;
  std::string reason; ///< of the last death
};

/// Tell, or tell no longer, what becomes of the blocks in the replica's prefix
/// cache: all of them first, whatever was told before.
struct follow_blocks {
  std::uint64_t incarnation = 0;
  bool follow = true;
};

/// For metrics: prompt tokens of a choice that its replica's cache was thought
/// to have, and those that it had.
struct measured_hits {
  std::uint64_t incarnation = 0;
  std::uint64_t predicted = 0;
  std::uint64_t reported = 0;
};

/// The request has left the table: nothing about it follows.
struct release {
  std::uint64_t request = 0;
};

} // namespace command

using any_command =
    std::variant<command::attach, command::detach, command::generate,
                 command::cancel, command::deliver, command::fail,
                 command::moved, command::suspected, command::convicted,
                 command::follow_blocks, command::measured_hits,
                 command::release>;
using command_list = std::vector<any_command>;

/// What has happened so far, for metrics.
struct table_counts {
  std::uint64_t streams_moved = 0; ///< sent again after their first token
  std::uint64_t streams_class_changed = 0;
  std::uint64_t choices_suspected = 0;
  std::uint64_t requests_convicted = 0;
  std::uint64_t requests_banned = 0;  ///< refused at submission
  std::uint64_t requests_late = 0;    ///< refused: not to be served in time
  std::uint64_t requests_expired = 0; ///< left the queue after their time
  std::uint64_t retries_put_off = 0;  ///< for lack of budget
};

/// All requests in flight of one router, as a pure state machine: an event and
/// the time go in, commands come out. No clock, no threads, no messages.
///
/// Every choice ends exactly once: with a `deliver` whose reason is stop or
/// length, or with a `fail` of its request; or silently, when it was cancelled.
///
/// A choice whose replica is lost, or refuses it as unavailable, goes on
/// elsewhere, with the tokens that it has: at a replica of the same arithmetic
/// class while one is listed, else, unless the deployment asks for exactness,
/// at any. When a replica is lost its choices first wait for a word on why
/// (`death`), for at most `notice_wait`. Those which it computed when it died
/// by its own fault are suspects: sent again one at a time per model, each
/// alone for its next tokens. So is every other choice of an equal request that
/// has not got as far. A suspect that does it again is guilty, its client still
/// there or not: its request and equal ones fail, and are refused for a while.
class request_table {
public:
  /// `incarnation` is the router's own: death notices name it.
  request_table(table_limits, std::uint64_t random_seed,
                std::uint64_t incarnation);

  // Events.
  command_list submit(submission, time_point now);
  command_list tokens(protocol::token_batch, time_point now);
  command_list attached(std::uint64_t incarnation, time_point now);
  command_list attach_failed(std::uint64_t incarnation, time_point now);
  command_list lost(std::uint64_t incarnation, time_point now);
  /// A replica's process has ended; before or after its session is lost.
  command_list death(protocol::death_notice, time_point now);
  /// Ignored unless newer than the one before.
  command_list route_by(const protocol::routing_table&, time_point now);
  /// What other routers hold: bounds of a model's queue are the cluster's.
  void heed(const protocol::others_load&, time_point now);
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
  /// Choices that are at no replica.
  std::size_t choices_waiting() const {
    return choices_ - sent_.size();
  }
  std::size_t choices_sent() const {
    return sent_.size();
  }
  std::size_t prompt_tokens() const {
    return prompt_tokens_;
  }
  /// What it holds of each model that has something.
  std::vector<protocol::router_load> load(time_point now) const;
  /// Choices at this replica; 0 if it is not known.
  std::size_t outstanding(std::uint64_t incarnation) const;
  const table_counts& counts() const {
    return counts_;
  }

private:
  using model_key = std::pair<std::string, std::string>; // application, model

  struct choice_state {
    protocol::request_record record; // with the id of its last sending
    std::uint64_t incarnation = 0;   // 0 = at no replica
    std::uint64_t cost = 0;          // its part of replica_state::tokens
    double charged = 0;              // to its tenant, of work
    double work = 0;                 // that it is in the queue with
    std::uint32_t sendings = 0;
    std::uint32_t unexplained = 0; // replicas lost without a notice
    std::string arithmetic_class;  // of its last token
    time_point waiting_since;      // while it waits
    time_point asked_at;           // whether anybody serves it; while it waits
    time_point news_at;            // its sending, or its last news
    std::vector<codec::block_name> blocks; // of the prompt, once asked for
    std::uint32_t block_size = 0;          // theirs
    std::uint64_t predicted = 0; // tokens that its replica should have cached
    bool started = false;
    bool fresh = true;       // no token since it was sent
    std::uint32_t tried = 0; // tokens since it was sent
    bool suspect = false;
    /// With so many tokens its request is suspect no more; 0 = it is not.
    std::size_t cleared_at = 0;
    bool open = true;
  };

  struct request_state {
    model_key model;
    std::string card_hash;
    std::uint64_t session = 0; // its hash; 0 = none
    std::string tenant;
    std::uint32_t choices_per_replica = 0;
    std::int32_t priority = 0;
    time_point since;
    time_point until; // its deadline
    bool has_limit = false;
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
    std::uint64_t name_hash = 0;
    model_key model;
    link_phase phase = link_phase::connecting;
    bool listed = true;
    std::set<std::uint64_t> sent;
    std::map<std::string, std::uint32_t> by_tenant; // of those
    std::uint64_t tokens = 0;
    std::uint32_t waiting = 0; // choices of all routers in its engine's queue
    std::uint64_t others_tokens = 0; // to do there for other routers
    replica_health health;
    replica_pace pace;
    std::chrono::milliseconds pause{0};
    time_point retry_at;
  };

  struct model_state {
    bool listed = true;
    replica_chooser chooser{{}, 0};
    std::size_t waiting_max = 0;
    std::size_t waiting_elsewhere = 0;                      // in other routers
    std::map<std::string, std::uint32_t> tenants_elsewhere; // of those, whose
    std::vector<std::uint64_t> replicas; // incarnations, listed ones
    waiting_room waiting;
    fair_shares shares;
    saturated_rate rate;
    // Of one choice, at any replica, but for outages.
    choice_rate speed;        // work a second
    choice_rate answer_speed; // tokens a second after the first
    double prompt_speed = 0;  // tokens a second, the best of late; 0 = unknown
    double company = 0; // choices at a replica while that was measured, of late
    retry_budget retries;
    double answer_mean = 0;                  // tokens, of late; 0 = not known
    std::vector<std::uint64_t> first_tokens; // see protocol::router_load
    std::vector<std::uint64_t> next_tokens;
    std::optional<choice_key> on_trial; // the suspect that is sent
  };

  /// A choice that waits for a word on its replica's death.
  struct held_choice {
    time_point until;
    std::uint64_t incarnation = 0;
    choice_key key;
  };

  struct destination {
    choice_key key;
    lane_key lane;
    std::uint64_t incarnation = 0;
    std::uint64_t predicted = 0; // tokens that should be cached there
    bool limited = false;        // there is room, but not for its tenant
  };

  choice_state* find(choice_key);
  std::optional<std::string> banned(const submission&, time_point) const;
  static lane_key lane_of(const request_state&, const choice_state&);
  void enqueue(choice_key);
  void dequeue(choice_key);
  standing standing_of(choice_key);
  static double answer_left(const model_state&,
                            const protocol::request_record&);
  static double work_left(const model_state&, const protocol::request_record&);
  bool has_company(const model_state&) const;
  double service_s(const model_state&, const protocol::request_record&,
                   time_point) const;
  std::optional<command::fail> too_late(const submission&, const model_state&,
                                        time_point) const;
  std::optional<double> rate_of_all(const model_state&, time_point) const;
  bool begins_too_late(choice_key, const model_state&, time_point);
  bool may_send(const destination&, model_state&, time_point);
  void note_end(choice_state&, model_state&);
  bool is_served(choice_key);
  bool queue_is_full(const model_state&, const std::string& tenant,
                     time_point) const;
  static bool is_begun(const request_state&);
  std::vector<std::uint64_t> allowed(const model_state&, const lane_key&) const;
  static std::uint32_t choices_max(const replica_state&);
  replica_snapshot snapshot_of(std::uint64_t incarnation) const;
  std::vector<replica_snapshot> trusted(const std::vector<std::uint64_t>& among,
                                        time_point) const;
  std::optional<std::uint64_t>
  probe_for(choice_key, const std::vector<std::uint64_t>& among) const;
  choice_wish wish_of(choice_key, const replica_chooser&);
  bool find_replica(const model_state&, destination&, time_point);
  std::optional<destination> next_to_send(model_state&, time_point);
  void pump(const model_key&, time_point, command_list&);
  void send(const destination&, time_point, command_list&);
  void take(choice_key, protocol::choice_tokens, time_point, replica_state&,
            command_list&);
  void note_progress(choice_key, std::size_t tokens, replica_state&);
  void note_rate(choice_key, const protocol::choice_tokens&, time_point,
                 replica_state&);
  void note_hits(choice_key, const protocol::choice_tokens&, replica_state&,
                 command_list&);
  void ask_for_blocks(std::uint64_t incarnation, time_point, command_list&);
  kv_index* blocks_of(const model_key&);
  void follow_rule(model_state&, const protocol::choice_rule&, command_list&);
  void refused(choice_key, const error&, time_point, replica_state&,
               command_list&);
  void release_held(std::uint64_t incarnation, time_point, command_list&);
  void settle(choice_key, const protocol::death_notice*, time_point,
              command_list&);
  sending last_sending(choice_key);
  void blame(std::uint64_t record, const protocol::death_notice&, time_point,
             command_list&);
  bool hold_with_suspects(choice_key, time_point);
  void clear_if_past(choice_key, bool ends);
  std::optional<std::string> guilty_meanwhile(choice_key, time_point);
  void convict(const sending&, const std::string& reason, time_point,
               command_list&);
  std::vector<std::uint64_t> requests_like(const sending&) const;
  void give_back(choice_key, const error&, command_list&);
  void unlink(choice_key);
  bool has_its_own(choice_key, const replica_state&) const;
  void end_trial(choice_key);
  void leave(choice_key);
  void give_up(choice_key);
  std::size_t trial_of(const choice_state&, std::size_t tokens) const;
  void close(choice_key, command_list&);
  void fail_request(std::uint64_t request, const error&, command_list&,
                    std::string incident = {});
  void drop_request(std::uint64_t request, command_list&);
  void list_replica(const protocol::replica_route&, const model_key&,
                    command_list&);
  void drop_unlisted(command_list&);
  void fail_waiting(const model_key&, command_list&);
  void link_down(std::uint64_t incarnation, time_point, command_list&);
  void expire_waiting(time_point, command_list&);
  void expire_late(time_point, command_list&);

  table_limits limits_;
  std::mt19937_64 random_;
  std::uint64_t incarnation_;
  std::uint64_t version_ = 0;
  bool exact_ = false; // router_settings::failover_exact
  std::uint64_t last_id_ = 0;
  std::size_t choices_ = 0;       // open ones
  std::size_t prompt_tokens_ = 0; // theirs
  std::map<std::uint64_t, request_state> requests_;
  std::map<std::uint64_t, choice_key> sent_;        // by record id
  std::map<std::uint64_t, replica_state> replicas_; // by incarnation
  std::map<model_key, model_state> models_;
  std::set<std::pair<time_point, choice_key>> queued_;   // all, by asked_at
  std::set<std::pair<time_point, std::uint64_t>> until_; // requests' deadlines
  std::optional<time_point> retry_at_; // a choice waits for its retry
  time_point heeded_at_{};             // the last word on other routers
  std::deque<held_choice> held_; // by deadline; those that left stay until then
  death_notes notices_;
  ban_list bans_;
  suspicion_list suspicions_;
  given_up_sendings given_up_;
  table_counts counts_;
};

} // namespace troupe::router
