#pragma once

#include "actors/protocol/routing_table.hpp"
#include "tests/sim/process.hpp"

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace troupe::sim {

/// What happened to messages, over a run.
struct network_counts {
  std::uint64_t arrived = 0;
  std::uint64_t lost = 0; ///< with their connection; their sender saw no error
  /// After a message of a newer connection between the same processes.
  std::uint64_t overtaken = 0;
};

/// What CAF over TCP gives: connections between processes, in order in each
/// direction, delayed at random, broken when one end hears nothing for a
/// second. Each end hears of it once, at its own time; what was on the way may
/// be lost, or come when one end has connected anew. A dead process's
/// connections break at once.
class network {
public:
  network(world& w, process_table& processes)
      : world_(w), processes_(processes) {
    // nop
  }

  /// Other processes reach it at its host's address and this port; 0 = one that
  /// is free. Ports of dead processes are given again.
  std::uint16_t listen(process_id, std::uint16_t port = 0);
  static std::string address_of(host_id);

  /// A connection that there is, or a new one; nothing if it could not be made
  /// in time. Calls back in the process.
  void connect(process_id from, const protocol::endpoint&, nanoseconds timeout,
               std::function<void(std::optional<link_id>)>);
  std::optional<link_id> find_link(process_id, process_id) const;
  process_id peer_of(link_id, process_id self) const;
  /// Whether this end has not heard of its loss.
  bool is_open(link_id, process_id self) const;

  void send(process_id from, link_id, message);

  const network_counts& counts() const {
    return counts_;
  }

  // Faults.
  void block(host_id from, host_id to);
  void unblock(host_id from, host_id to);
  bool blocked(host_id from, host_id to) const;
  /// Every message takes up to so much longer.
  void slow_down(nanoseconds at_most) {
    more_delay_ = at_most;
  }
  /// Of all attempts to connect, so many fail.
  void refuse(double share) {
    refused_ = share;
  }

  /// A connection between two hosts, if there is one, is lost without a word:
  /// a little of what is on the way or follows comes late, the rest never. An
  /// end hears of it by silence, or sooner by chance.
  void lose_connection();
  /// Both ends of all lost connections hear of it.
  void notice_lost();

  // What happens to processes.
  void stopped(process_id);
  void went_on(process_id);
  /// Its clock leapt further than a peer may be silent: it may take any of its
  /// connections for lost.
  void leapt(process_id);
  /// `abruptly`: what it said a moment ago may not have left it.
  void died(process_id, bool abruptly);

private:
  /// One direction of a connection.
  struct lane {
    struct parcel {
      instant sent;
      message what;
    };
    std::deque<parcel> on_the_way;
    bool ends = false; ///< then the receiver hears that it is down
    instant clear_at{0};
    instant silent_since{-1}; ///< negative = it is not
    std::uint64_t due = 0;    ///< arrivals planned and not yet tried
    instant held_until{0};    ///< nothing arrives before
    std::uint64_t passes = 0; ///< of a lost connection: messages that do yet
  };

  /// lanes[i] goes to ends[i].
  struct link {
    std::array<process_id, 2> ends{};
    std::array<bool, 2> closed{}; ///< for this end
    bool lost = false;
    std::array<lane, 2> lanes;
  };

  struct place {
    host_id host = 0;
    std::uint16_t port = 0;
    auto operator<=>(const place&) const = default;
  };

  link& at(link_id id) {
    return links_[id - 1];
  }
  process& end_of(const link& x, int i) const {
    return processes_.at(x.ends[static_cast<std::size_t>(i)]);
  }
  nanoseconds delay(host_id, host_id);
  void try_connect(process_id from, place to, instant deadline, int attempt,
                   std::function<void(std::optional<link_id>)>);
  void plan_arrival(link_id, int to);
  void arrive(link_id, int to);
  bool lane_blocked(const link&, int to) const;
  bool is_silent(const link&, int to) const;
  void watch_silence(link_id, int to);
  void check_silence(link_id, int to, instant since);
  void close(link_id, int end, bool tell);
  void drop(lane&, std::size_t kept);
  void note_arrival(link_id);
  void look_again(process_id);

  world& world_;
  process_table& processes_;
  nanoseconds more_delay_{0};
  double refused_ = 0;
  std::map<std::pair<host_id, host_id>, int> blocks_;
  std::map<place, process_id> listeners_;
  std::vector<link> links_;
  std::map<process_id, std::vector<link_id>> links_of_;
  network_counts counts_;
  /// By its two processes: the newest connection over which a message came.
  std::map<std::pair<process_id, process_id>, link_id> newest_;
};

} // namespace troupe::sim
