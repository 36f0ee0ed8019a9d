#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/controller/placement.hpp"
#include "actors/controller/scaling.hpp"
#include "actors/protocol/cluster_status.hpp"
#include "actors/protocol/load_messages.hpp"
#include "actors/protocol/node_messages.hpp"
#include "actors/protocol/routing_table.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::controller {

using time_point = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

struct controller_limits {
  /// After a start, for the nodes that the store remembers to come back before
  /// their replicas are placed anew.
  milliseconds rejoin_max{5'000};
  /// Between two routing tables, so that many changes at once are one.
  milliseconds table_pause{20};
  /// A model's replicas that may be started beside those wanted, at least 1, in
  /// a rolling change: this share of them.
  double surge = 0.2;
  /// A lost node stays in the status, and its replicas' names unused, so long.
  milliseconds lost_max{600'000};
  std::size_t lost_nodes_max = 4'096; ///< the one lost first is forgotten first
  /// Beyond its grace, for the end of a replica to be reported; then its
  /// resources are free, but for GPUs of which its node has not said so.
  milliseconds end_report_max{5'000};
  /// A model that may have no replica and could not be woken is left alone so
  /// long; doubles with each time in a row.
  milliseconds wake_pause{30'000};
  milliseconds wake_pause_max{600'000};
};

/// To the agent of `node`, as a node of protocol version `version` reads it.
struct send_assignment {
  std::string node;
  protocol::node_assignment assignment;
  std::uint32_t version = protocol::protocol_version;
};
/// To every agent: the newest table (`table()`).
struct publish_table {};
/// To every agent.
struct forward_death {
  protocol::death_notice notice;
};
/// For the store: the nodes to wait for after a restart.
struct remember_nodes {
  std::vector<std::string> nodes;
};
/// For the store: the replicas that scaled models are to have after a restart.
struct remember_targets {
  std::vector<scale_target> targets;
};
/// For the autoscaler: what scaled models there are has changed (`scaled()`).
struct tell_scaled {};
/// For the autoscaler.
struct tell_load {
  protocol::replica_load_news news;
};
/// For an autoscaler that brings nodes: `nodes()` has changed.
struct tell_nodes {};
using command =
    std::variant<send_assignment, publish_table, forward_death, remember_nodes,
                 remember_targets, tell_scaled, tell_load, tell_nodes>;
using commands = std::vector<command>;

/// What is wanted, where it runs and what routers may use: a pure state machine
/// (events and the time in, commands out; no actors, no disk). Node agents
/// restart processes; the machine decides which replicas there are and where.
///
/// - A node that registers again brings its replicas: those that are wanted,
/// and
///   not placed elsewhere meanwhile, are adopted as they are; the others are
///   not in its next assignment, so the agent ends them. (One that serves is
///   kept rather than a new one elsewhere that is not ready yet.)
/// - A lost node's replicas are placed elsewhere at once where they fit; where
///   they do not, they wait for room or for the node to come back.
/// - A node that drains by itself (`troupe stop`) gets nothing more, and what
/// it
///   had is placed elsewhere at once; its own replicas finish what they run.
/// - A changed model is replaced replica by replica: new ones are ready before
///   old ones leave the table and drain. Without room for both, an old one is
///   given up first, one at a time. Changes that no process must be restarted
///   for (`same_process`, replicas, ...) are made in place. If a new one fails
///   for good, the change stops and what serves goes on.
/// - The resources of a replica that leaves are free once its end is reported.
/// - Whatever happens costs at most time linear in replicas + nodes.
class controller_machine {
public:
  /// `epoch` is higher than that of every head before (state_store).
  /// `remembered`: nodes that belonged to the cluster when it was last seen.
  /// `revoked`: all that every agent is to be told of.
  controller_machine(std::uint64_t epoch, controller_limits,
                     const std::vector<std::string>& remembered, time_point now,
                     std::vector<protocol::revocation> revoked = {});

  /// The desired state at the start, as stored; places nothing, and publishes
  /// nothing, before the remembered nodes are back or `rejoin_max` is over.
  /// `targets`: what scaled models had then.
  commands restore(deployment, time_point now,
                   const std::vector<scale_target>& targets = {});

  /// A node registers. Refused: a name that another living process bears, a
  /// protocol version more than one apart, a node that has obeyed a newer head.
  protocol::node_welcome join(protocol::node_joined, commands&, time_point now);

  /// The connection to the agent of this epoch is gone. `has_stopped`: in
  /// order, so after a restart nobody waits for it.
  commands node_lost(const std::string& node, std::uint64_t node_epoch,
                     time_point now, bool has_stopped = false);

  /// The certificates of `node` were revoked; `all` that were are told to every
  /// agent. The node is lost, if it was there, and not expected back.
  commands revoke(const std::string& node,
                  std::vector<protocol::revocation> all, time_point now);

  /// "alive", "lost" (not long ago) or "unknown".
  std::string_view state_of(const std::string& node) const;

  /// The desired state is now `wanted`. What did not change stays as it is.
  commands deploy(deployment wanted, time_point now);

  /// The autoscaler's word. Of a model that is not scaled, or whose scaling has
  /// changed since: dropped.
  commands scale(const protocol::scale_order&, time_point now);

  /// The word of a scaler outside the cluster. Errors: no such model; its
  /// application has no external_scaler_enabled; more than 4096 replicas.
  result<void> scale_from_outside(const std::string& application,
                                  const std::string& model,
                                  std::uint32_t replicas, commands&,
                                  time_point now);

  /// There is somebody who brings nodes: from now on `tell_nodes`.
  commands watch_nodes(time_point now);

  /// Nothing is to be placed on this node any more, or things may be again.
  /// False, and nothing done, if there is something that would have to go.
  bool close_node(const std::string& node, bool closed, commands&,
                  time_point now);

  /// These nodes were ended and will not come back: they are forgotten as soon
  /// as they are gone.
  commands bury(const std::vector<std::string>& nodes, time_point now);

  /// News of a replica. Of older epochs, of replicas that are not wanted and
  /// of older processes: dropped.
  commands report(const protocol::replica_news&, time_point now);
  commands death(const protocol::death_notice&, time_point now);

  /// What a rank says to those of its replica on other nodes, which are named.
  /// Nobody, for what is of an older start, but for why that ended, or epoch.
  std::vector<std::string> hearers(const protocol::rank_word&) const;

  commands tick(time_point now);

  /// When `tick` has something to do; nothing = not before another event.
  std::optional<time_point> next_deadline() const;

  scaled_models scaled() const;
  protocol::nodes_view nodes(time_point now) const;
  /// What has no node, one entry per model.
  std::vector<protocol::node_demand> demands(time_point now) const;
  protocol::routing_table table() const;
  protocol::cluster_status status() const;
  const deployment& wanted() const;
  std::uint64_t epoch() const;

private:
  using model_key = std::pair<std::string, std::string>; ///< application, model

  /// One that is wanted, on a node that is alive.
  struct replica {
    protocol::replica_spec spec;
    replica_demand demand; ///< what it took
    protocol::replica_report last;
    std::deque<std::uint64_t> lives; ///< incarnations before the newest
    bool was_ready = false;
    bool outdated = false;      ///< its model has changed since
    bool threads_given = false; ///< by the deployment, not by its node
    bool back = false;          ///< its node brought it just now
  };

  struct model {
    model_deployment wanted;
    std::size_t order = 0;                     ///< in `wanted_`
    std::map<std::uint32_t, replica> replicas; ///< by the number in the id
    bool held = false;          ///< nothing is placed or given up for now
    bool settled = false;       ///< nothing is missing, surplus or outdated
    std::string unplaced;       ///< why a replica has no node
    std::uint32_t demanded = 0; ///< replicas that need more nodes
    std::optional<time_point> waits_since; ///< so, without a break
    std::uint32_t listed = 0;       ///< replicas, as the deployment has it
    std::uint64_t revision = 0;     ///< of its scaling
    protocol::scale_order decision; ///< the last one of this revision
    std::uint32_t failed_wakes = 0; ///< in a row
    std::optional<time_point> rests_until; ///< it could not be woken
  };

  /// What a replica, or a part of one, takes of a node.
  struct holding {
    amounts taken;
    protocol::gpu_numbers gpus = {}; ///< of the node's
    double of_gpus = 0;              ///< as `replica_spec::gpus`
  };

  /// What a node has of a replica of another one (`replica_spec::part`).
  struct part {
    model_key of;
    std::uint32_t number = 0; ///< of the replica
    protocol::replica_spec spec;
    holding has;
    /// The start whose ranks have ended here, by the node's word when it
    /// joined; 0 = none. The replica may not know it.
    std::uint64_t ended = 0;
    bool heard = false;                       ///< as `leftover::heard`
    std::vector<protocol::gpu_use> gpus = {}; ///< as the node said last
  };

  /// A process that is not wanted where it is, or whose node is lost. It keeps
  /// its id and, while its node is alive, its resources until it is gone.
  struct leftover {
    model_key of;
    replica_demand demand; ///< of the whole replica
    time_point gone_by; ///< counted as gone then; only while the node is alive
    holding has = {};   ///< of this node, of a part also while it is lost
    /// The node has spoken of it, and so will speak of its end: it gives its
    /// GPUs to nobody before.
    bool heard = false;
    bool overdue = false; ///< `gone_by` has passed; it has GPUs, nothing else
  };

  struct node {
    protocol::node_joined self; ///< without replicas
    std::uint64_t epoch = 0;
    bool alive = false;
    bool leaving = false;     ///< it ends what it has, and takes nothing more
    bool has_stopped = false; ///< see `node_lost`
    time_point forget_at{};   ///< while lost
    std::uint64_t sequence = 0;
    amounts total;
    amounts used;
    protocol::gpu_room gpus; ///< what is not used of them
    std::map<std::string, std::pair<model*, std::uint32_t>> replicas; ///< by id
    std::map<std::string, leftover> leftovers;                        ///< by id
    std::map<std::string, part> parts;                                ///< by id
  };

  struct tally {
    std::uint32_t current = 0; ///< of the wanted configuration
    std::uint32_t current_ready = 0;
    std::uint32_t current_failed = 0; ///< for good
    std::uint32_t outdated = 0;
    std::uint32_t outdated_ready = 0;
  };

  // Nodes.
  std::string refusal(const protocol::node_joined&) const;
  void take_in(node&, const protocol::running_replica&,
               const std::map<std::string, leftover>& had, time_point now);
  void strip(node&);
  void forget(std::map<std::string, node>::iterator);
  void lose(node&, time_point now);
  void leaves(node&, time_point now);
  node_room room_of(const node&) const;
  void keep_lost_bounded();

  // Replicas.
  static holding holding_of(const replica_demand&,
                            const protocol::replica_spec&, std::uint32_t part);
  static void occupy(node&, const holding&);
  static void vacate(node&, const holding&);
  void accept(const std::vector<model_deployment>&, time_point now);
  void recheck(model&, replica&);
  static bool same(const model&, const replica&);
  static void count_here(const model&,
                         std::map<std::string_view, std::uint32_t>&);
  void create(model&, const std::vector<std::string>& on, std::uint32_t number);
  void choose_gpus(replica&) const;
  void create_parts(model&, replica&, std::uint32_t number);
  void follow(const replica&);
  const replica* replica_of(const part&) const;
  void leave_part(node&, const std::string& id, time_point now);
  void take_in_part(node&, const protocol::running_replica&,
                    const std::map<std::string, leftover>& had, time_point now);
  bool is_reserved(const model&, std::uint32_t number) const;
  void check_parts(time_point now);
  bool has_all_parts(const replica&) const;
  void leave(model&, std::uint32_t number, time_point now);
  void add_leftover(node&, const std::string& id, leftover);
  void gone(node&, const std::string& id);
  void end_wait_for(node&, const std::string& id);
  static bool is_busy(const node&);
  void drop_reservation(const std::string& id);
  void drop_leaving(const model_key&);
  std::int32_t threads_of(const model_deployment&, const node&,
                          const protocol::replica_spec&) const;

  // What a model has and lacks.
  void count_shared();
  void set_target(model&, std::uint32_t replicas);
  void note_waking(model&, const tally&, time_point now);
  void end_rests(time_point now);
  std::vector<scale_target> targets() const;
  static tally count(const model&);
  static bool change_failed(const tally&);
  std::uint32_t surge_of(const model&) const;
  void dirty(model&);
  void reconcile(model&, time_point now);
  void trim(model&, time_point now);
  void fill(model&, time_point now);
  std::uint32_t place_some(model&, std::uint32_t count);
  bool give_one_up(model&, time_point now);
  std::vector<node_room> rooms_for(const model&) const;
  void try_waiting(time_point now);
  protocol::node_demand demand_of(const model&, time_point now) const;
  static protocol::seen_node seen(const node&);
  std::string why_waiting(const model&) const;

  // The end of every event.
  void finish(commands&, time_point now);
  void end_wait();
  void send_due(commands&);
  void publish(commands&, time_point now);
  void show_nodes(commands&, time_point now);
  void table_changed();

  protocol::replica_report with_parts(const replica&) const;
  protocol::model_status status_of(const model&) const;
  std::string reason_of(const model&, const tally&) const;

  std::uint64_t epoch_;
  controller_limits limits_;
  deployment wanted_;
  std::vector<protocol::revocation> revoked_;
  std::map<model_key, model> models_;
  std::map<std::string, node> nodes_; ///< by name; lost ones too
  std::uint64_t joins_ = 0;
  std::size_t nodes_alive_ = 0;
  std::uint32_t shared_replicas_ = 0; ///< wanted, of all models on CPUs

  std::set<std::string> awaited_; ///< nodes that are to come back
  time_point awaited_until_;
  std::map<std::string, std::uint32_t> reserved_; ///< ids of leftovers
  std::map<model_key, std::uint32_t> leaving_;    ///< on nodes that are alive
  std::set<std::tuple<time_point, std::string, std::string>>
      gone_by_;                                            ///< node, id
  std::set<std::pair<time_point, std::string>> forget_at_; ///< lost nodes
  std::set<std::pair<time_point, model_key>> rests_until_;

  // What this event has still to bring about.
  std::map<std::size_t, model*> dirty_; ///< by order
  std::set<model_key> waiting_;         ///< for room; stays until placed
  std::set<std::string> gained_;        ///< nodes with more room than before
  std::set<std::string> due_;           ///< nodes whose assignment changed
  bool parts_due_ = false;              ///< whether parts fit is to be seen
  bool nodes_changed_ = false;          ///< which there are alive
  bool members_changed_ = false;        ///< which there are at all

  std::uint64_t table_number_ = 1;
  bool table_due_ = false;
  bool scaled_due_ = false;
  std::vector<scale_target> targets_; ///< as the store was last told
  bool targets_changed_ = false;
  std::uint64_t revisions_ = 0;
  std::optional<time_point> published_at_;

  bool watches_nodes_ = false;
  bool view_due_ = false; ///< `nodes()` has changed
  std::optional<time_point> viewed_at_;
  std::set<std::string> closed_; ///< nodes that get nothing more
  std::set<std::string> buried_; ///< to be forgotten once they are gone

  std::set<std::uint64_t> deaths_; ///< incarnations that were told
  std::deque<std::uint64_t> deaths_in_order_;
};

} // namespace troupe::controller
