#pragma once

#include "actors/node_agent/rank_parts.hpp"
#include "actors/node_agent/supervisor.hpp"
#include "actors/protocol/cluster_messages.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::node_agent {

struct head_link_limits {
  /// Between two attempts to reach the head; for ever, as nothing else can be
  /// done without it and the node goes on serving meanwhile.
  milliseconds retry{200};
  /// A registration that is not answered in this time is sent again over a new
  /// connection.
  milliseconds answer_max{2'000};
  /// A replica that failed with ranks on other nodes may have done so because
  /// one of those crashed: so long, and until the next tick, their nodes' word
  /// is waited for, before it is said why it died. Less than routers wait.
  milliseconds word_max{50};
};

// What the shell does beside the supervisor's commands, in order.

/// Connect to the head; answer with head_connected() or head_unreachable().
struct connect_head {};
/// Over the connection; its answer goes to welcomed().
struct register_node {
  protocol::node_joined node;
};
/// Give the connection up.
struct leave_head {};
/// To the controller; dropped silently where there is no connection.
struct send_news {
  protocol::replica_news news;
};
/// To the controller, and to the node's own router, which may be all that hears
/// of it while the head is away.
struct send_death {
  protocol::death_notice notice;
};
/// To the controller, for the other nodes that have ranks of the replica.
struct send_rank_word {
  protocol::rank_word word;
};
/// The node's router should listen, or stop: the head's first word on it and
/// every other one that differs from the last.
struct want_router {
  bool wanted = true;
};
/// All whose certificates are void: the head's first word on it and every other
/// one that differs from the last. Before anything else it says with it.
struct know_revoked {
  std::vector<protocol::revocation> all;
};
using agent_command =
    std::variant<spawn_process, signal_process, drain_replica, all_stopped,
                 connect_head, register_node, leave_head, send_news, send_death,
                 tune_replica, want_router, know_revoked, send_rank_word>;
using agent_commands = std::vector<agent_command>;

/// The node agent without messages, processes and a clock: its bond with the
/// head and the supervisor of its replicas. With the head gone it keeps all
/// that it was told to run; a head that it meets again hears of everything it
/// has.
///
/// Epochs: only a welcome of a head epoch at least as new as any before is
/// taken; assignments must bear the epochs of the newest welcome, and a newer
/// sequence. Until the first welcome nothing is told to anybody.
class agent_machine {
public:
  /// `self` is what it registers as (its `replicas`, `head_epoch` and
  /// `http_port` are filled in at each registration).
  agent_machine(protocol::node_joined self, supervision_limits,
                head_link_limits, std::uint64_t seed, clock::time_point now);

  // The head.
  agent_commands head_connected(clock::time_point now);
  agent_commands head_unreachable(clock::time_point now);
  /// The connection or the controller is gone.
  agent_commands head_lost(clock::time_point now);
  agent_commands welcomed(const protocol::node_welcome&, clock::time_point now);
  agent_commands assigned(const protocol::node_assignment&,
                          clock::time_point now);

  // Replicas.
  agent_commands spawned(std::uint64_t incarnation, std::int64_t pid);
  /// `running` is what the step journal says; empty if it cannot be read.
  agent_commands
  ended(std::uint64_t incarnation, const process_end&,
        const std::vector<std::pair<std::uint64_t, std::uint64_t>>& running,
        clock::time_point now);
  bool knows(const protocol::replica_report&) const;
  agent_commands report(protocol::replica_report, clock::time_point now);

  /// Ranks on another node, of the replica with this incarnation, have ended
  /// (`own_fault`: by a crash): so does it, and that is why.
  agent_commands ranks_ended(std::uint64_t incarnation, const std::string& why,
                             bool own_fault);

  /// What GPUs of parts are used for: of replicas their reports say it.
  agent_commands see_gpus(const gpu_look&);

  /// The router of the node listens on this port; 0 = not any more. The head
  /// hears of it.
  agent_commands router_port(std::uint16_t, clock::time_point now);

  /// Ends all replicas within `time_max`; nothing is started any more.
  agent_commands drain(milliseconds time_max, clock::time_point now);
  agent_commands tick(clock::time_point now);

  // For metrics and tests.
  std::uint64_t head_epoch() const {
    return head_epoch_;
  }
  std::uint64_t node_epoch() const {
    return node_epoch_;
  }
  /// Protocol version of the head that answered last; this node's own until
  /// then. An older head refuses what it cannot read, without a version: the
  /// next registration is written for it.
  std::uint32_t head_version() const {
    return head_version_;
  }
  bool joined() const {
    return phase_ == phase::joined;
  }
  bool empty() const {
    return supervisor_.empty() && parts_.empty();
  }

private:
  enum class phase { waiting, connecting, registering, joined };

  agent_commands translate(commands) const;
  agent_commands try_again(clock::time_point now);
  agent_commands registration(clock::time_point now);
  std::vector<protocol::running_replica> replicas() const;
  /// News of all that is here, and of what was here at the registration.
  agent_commands tell_all() const;
  protocol::replica_news news_of(protocol::replica_report) const;
  agent_commands part_ended(const protocol::replica_spec& part,
                            std::uint64_t incarnation, const process_end&,
                            clock::time_point now);
  send_death word_on(protocol::death_notice) const;
  agent_commands tell_held(clock::time_point now);
  bool is_newer(const protocol::node_welcome&) const;

  protocol::node_joined self_;
  supervisor supervisor_;
  rank_parts parts_;
  head_link_limits limits_;
  phase phase_ = phase::waiting;
  clock::time_point act_at_{};   ///< next attempt, or end of the wait
  std::uint64_t head_epoch_ = 0; ///< newest obeyed
  std::uint64_t node_epoch_ = 0;
  std::uint32_t head_version_ = protocol::protocol_version;
  std::uint64_t registrations_ = 0;
  /// What the newest one said is here: of what has ended since, its answer is
  /// the first chance to say so.
  std::vector<protocol::running_replica> registered_;
  /// Of the newest assignment of this node epoch.
  std::optional<std::uint64_t> sequence_;
  /// The last one that came ahead of its welcome.
  std::optional<protocol::node_assignment> early_;
  std::optional<bool> router_wanted_; ///< as the head said last
  std::optional<std::vector<protocol::revocation>> revoked_; ///< the same
  bool leaving_ = false;                                     ///< drains

  /// Of replicas that failed by themselves, and other nodes may say why: until
  /// when they are held. By incarnation.
  std::map<std::uint64_t, std::pair<protocol::death_notice, clock::time_point>>
      held_;
  struct rank_end {
    bool own_fault = false; ///< by a crash
    std::string why;
  };
  /// Of ranks elsewhere, by the incarnation of those here, which live yet.
  std::map<std::uint64_t, rank_end> ends_elsewhere_;
};

} // namespace troupe::node_agent
