#pragma once

#include "engine/codec/tagged.hpp"
#include "tests/sim/world.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::sim {

using host_id = std::uint32_t;
using process_id = std::uint32_t; ///< its place in the table + 1; 0 = none
using link_id = std::uint64_t;    ///< a connection between two processes
using local_time = std::chrono::steady_clock::time_point;

class network;
class process;
class unsteady_reports;

/// What a message between two processes is about; the records in it are the
/// real ones.
enum class topic : std::uint8_t {
  answer,
  // node agent -> controller
  join,
  news,
  death_of_mine,
  load,
  // controller -> node agent
  assign,
  table,
  death_elsewhere,
  others,
  // replica -> node agent
  introduce,
  report,
  // node agent -> replica
  drain,
  tune,
  // router -> replica
  attach,
  generate,
  cancel,
  blocks,
  // replica -> router
  tokens,
};

struct message {
  topic what = topic::answer;
  std::uint64_t number = 0; ///< of a request and its answer; 0 = none
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  codec::bytes body;
};

/// How a process ended.
struct ending {
  int exit_code = 0;
  int signal = 0;
};

/// All processes of a run, living and dead.
class process_table {
public:
  /// Takes its place; the process is told its id.
  process_id add(std::unique_ptr<process>);
  process& at(process_id id) const {
    return *all_[id - 1];
  }
  process* find_living(process_id) const;
  const std::vector<std::unique_ptr<process>>& all() const {
    return all_;
  }

private:
  std::vector<std::unique_ptr<process>> all_;
};

/// What the processes of a run share.
struct surroundings {
  sim::world& world;
  sim::network& network;
  process_table& processes;
  const unsteady_reports& reports;
};

/// The clocks of a host. The steady one runs a little faster or slower than
/// true time, from a time of its own; it leaps or stands still only while the
/// host does. The wall clock shows whatever it is set to.
struct host_clock {
  nanoseconds at_start{0};
  double rate = 1;
  nanoseconds wall_at_start{0}; ///< since 1970

  local_time read(instant true_time) const;
  std::chrono::system_clock::time_point read_wall(instant true_time) const;
  nanoseconds true_length(nanoseconds local) const;
};

/// A process: it lives, stands still for a while (SIGSTOP) or is dead. What it
/// hears while it stands still waits until it goes on.
class process {
public:
  /// The clock is its host's, which outlives it.
  process(surroundings, host_id, const host_clock&, std::string name,
          process_id parent);
  virtual ~process() = default;

  process_id id() const {
    return id_;
  }
  host_id host() const {
    return host_;
  }
  process_id parent() const {
    return parent_;
  }
  const std::string& name() const {
    return name_;
  }
  const host_clock& clock() const {
    return clock_;
  }
  bool alive() const {
    return alive_;
  }
  bool frozen() const {
    return frozen_ > 0;
  }

  // What happens to it. It goes on when it was thawed as often as frozen.
  void freeze();
  void thaw();
  /// Its host's clock has leapt: timers may be due.
  void clock_leapt();
  /// It and its children are dead; its parent hears how it ended.
  void kill(ending);

  /// Does something in the process: now, when it goes on, or never.
  void run(world::action);

  // What it does.
  local_time now() const;
  void after(nanoseconds local, world::action);
  void send(link_id, message);
  /// The answer, or null after the time-out: also if the peer is gone, as CAF
  /// has it.
  using on_answer = std::function<void(const message*)>;
  void request(link_id, message, nanoseconds timeout, on_answer);
  /// The part of `request` that waits; the caller sees to the message, which
  /// gets its number.
  void expect_answer(message&, nanoseconds timeout, on_answer);
  void answer(link_id, const message& request, message);

  /// From now on it wants to know when the connection is lost; it may be.
  void watch(link_id);

  // What the network has for it.
  virtual void on_message(link_id, message&) = 0;
  virtual void on_down(link_id) = 0;
  virtual void on_child_end(process_id, ending) {
    // nop
  }
  void receive(link_id, message);
  void hear_down(link_id);

protected:
  surroundings around_;

private:
  friend class process_table;

  void wake_at(local_time);
  void ring(local_time due);

  process_id id_ = 0;
  host_id host_;
  const host_clock& clock_;
  std::string name_;
  process_id parent_;
  bool alive_ = true;
  int frozen_ = 0;
  std::deque<world::action> backlog_; // while it stands still
  std::multimap<local_time, world::action> timers_;
  std::uint64_t last_request_ = 0;
  std::map<std::uint64_t, on_answer> asked_;
};

} // namespace troupe::sim
