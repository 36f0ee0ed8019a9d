#include "actors/node_agent/supervisor.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <set>
#include <utility>

namespace troupe::node_agent {

using protocol::replica_phase;
using protocol::replica_report;
using protocol::replica_spec;

std::string process_end::to_string() const {
  if (!not_spawned.empty())
    return "could not be started: " + not_spawned;
  if (signal == 0)
    return "exited with status " + std::to_string(exit_code);
  const char* name = ::sigabbrev_np(signal);
  return name ? "killed by SIG" + std::string{name}
              : "killed by signal " + std::to_string(signal);
}

namespace {

/// Without a word; it reports every second, so less would be no sign.
milliseconds silence_max(const replica_spec& spec) {
  return std::max(milliseconds{spec.health_check_timeout_ms},
                  milliseconds{1500});
}

/// Before so many steps the longest one says little.
constexpr std::uint64_t steps_to_judge_by = 10;

/// Without a step while requests run.
milliseconds stall_max(const replica_spec& spec,
                       const protocol::replica_load& load) {
  auto most = 3 * std::max(milliseconds{spec.health_check_period_ms},
                           milliseconds{500});
  if (load.steps < steps_to_judge_by)
    return most;
  auto usual = 10 * milliseconds{load.longest_step_ms};
  return std::min(std::max(usual, milliseconds{2000}), most);
}

} // namespace

supervisor::supervisor(supervision_limits limits, std::uint64_t seed)
    : limits_(std::move(limits)), random_(seed) {
  // nop
}

commands supervisor::assign(std::vector<replica_spec> specs,
                            clock::time_point now) {
  commands out;
  if (draining_)
    return out;
  std::set<std::string> wanted;
  for (const auto& spec : specs)
    wanted.insert(spec.replica);
  for (auto i = replicas_.begin(); i != replicas_.end();) {
    auto current = i++;
    if (!wanted.contains(current->first))
      stop(current, now, out);
  }
  for (auto& spec : specs)
    if (wanted.erase(spec.replica) != 0)
      keep(std::move(spec), now, out);
  return out;
}

void supervisor::keep(replica_spec spec, clock::time_point now, commands& out) {
  auto [i, fresh] = replicas_.try_emplace(spec.replica);
  auto& x = i->second;
  if (fresh) {
    x.spec = std::move(spec);
    launch(x, now, out);
  } else if (x.now == phase::stopping) {
    x.next = std::move(spec);
  } else if (x.spec != spec) {
    change(x, std::move(spec), now, out);
  }
}

void supervisor::change(replica& x, replica_spec spec, clock::time_point now,
                        commands& out) {
  if (x.now == phase::failed) {
    x = replica{};
    x.spec = std::move(spec);
    launch(x, now, out);
  } else if (x.now == phase::waiting) {
    x.spec = std::move(spec);
  } else if (protocol::same_process(x.spec, spec)) {
    x.spec = std::move(spec);
    out.push_back(tune_replica{x.incarnation, x.spec});
  } else {
    milliseconds grace{x.spec.graceful_shutdown_timeout_ms};
    begin_stop(x, grace, grace + limits_.terminate_max, now, out);
    x.next = std::move(spec);
  }
}

void supervisor::launch(replica& x, clock::time_point now, commands& out) {
  do {
    x.incarnation = random_();
  } while (x.incarnation == 0);
  x.now = phase::running;
  x.heard = false;
  x.was_ready = false;
  x.is_hopeless = false;
  x.heard_at = now;
  x.step_at = now;
  x.step = 0;
  x.killed_because.clear();
  auto restarts = x.last.restarts;
  x.last = replica_report{};
  x.last.replica = x.spec.replica;
  x.last.incarnation = x.incarnation;
  x.last.restarts = restarts;
  out.push_back(spawn_process{x.incarnation, x.spec});
  tell(x, out);
}

void supervisor::stop(replica_map::iterator i, clock::time_point now,
                      commands& out) {
  auto& x = i->second;
  x.next.reset();
  if (x.now == phase::running) {
    milliseconds grace{x.spec.graceful_shutdown_timeout_ms};
    begin_stop(x, grace, grace + limits_.terminate_max, now, out);
  } else if (x.now != phase::stopping) {
    forget(i, now, out);
  }
}

/// A replica that has not registered has nothing to finish.
void supervisor::begin_stop(replica& x, milliseconds grace,
                            milliseconds until_kill, clock::time_point now,
                            commands& out) {
  x.now = phase::stopping;
  x.kill_at = now + until_kill;
  x.terminate_at = x.heard ? now + grace : now;
  if (x.last.phase != replica_phase::failed)
    x.last.phase = replica_phase::draining;
  tell(x, out);
  if (x.heard)
    out.push_back(drain_replica{x.incarnation, grace});
  else
    watch(x, now, out);
}

commands supervisor::drain(milliseconds time_max, clock::time_point now) {
  commands out;
  draining_ = true;
  // Something is left of the time for the signals to do their work.
  auto grace = time_max * 8 / 10;
  auto until_kill = time_max * 9 / 10;
  for (auto i = replicas_.begin(); i != replicas_.end();) {
    auto current = i++;
    auto& x = current->second;
    x.next.reset();
    if (x.now == phase::running) {
      begin_stop(x, grace, until_kill, now, out);
    } else if (x.now == phase::stopping) {
      x.terminate_at = std::min(x.terminate_at, now + grace);
      x.kill_at = std::min(x.kill_at, now + until_kill);
    } else {
      forget(current, now, out);
    }
  }
  if (replicas_.empty() &&
      (out.empty() || !std::holds_alternative<all_stopped>(out.back())))
    out.push_back(all_stopped{});
  return out;
}

commands supervisor::spawned(std::uint64_t incarnation, std::int64_t pid) {
  commands out;
  if (auto* x = find(incarnation)) {
    x->last.pid = pid;
    tell(*x, out);
  }
  return out;
}

commands supervisor::ended(std::uint64_t incarnation, const process_end& end,
                           clock::time_point now) {
  commands out;
  auto* x = find(incarnation);
  if (!x)
    return out;
  x->incarnation = 0;
  if (x->now == phase::stopping) {
    forget(replicas_.find(x->spec.replica), now, out);
    return out;
  }
  auto reason = end.to_string();
  if (!x->killed_because.empty())
    reason = x->killed_because;
  else if (x->last.phase == replica_phase::failed && !x->last.reason.empty())
    // It said why; but of ranks, who is killed cannot, and others only miss it.
    reason =
        end.signal == 0 ? x->last.reason : reason + " (" + x->last.reason + ")";
  restart_or_fail(*x, reason, now, out);
  return out;
}

milliseconds supervisor::pause_before_restart(const replica& x,
                                              clock::time_point now) const {
  if (x.was_ready && now >= x.ready_at + limits_.settled)
    return {};
  auto before = x.was_ready ? x.restarts.size() : x.failed_starts - 1;
  auto last = limits_.back_off.size() - 1;
  auto pause = limits_.back_off.empty()
                   ? milliseconds{}
                   : limits_.back_off[std::min<std::size_t>(before, last)];
  return std::min(pause, milliseconds{x.spec.restart_pause_max_ms});
}

void supervisor::restart_or_fail(replica& x, const std::string& reason,
                                 clock::time_point now, commands& out) {
  while (!x.restarts.empty() &&
         x.restarts.front() + limits_.restart_window <= now)
    x.restarts.pop_front();
  auto failed_start = !x.was_ready;
  x.failed_starts = failed_start ? x.failed_starts + 1 : 0;
  x.last.phase = replica_phase::failed;
  x.last.reason = reason;
  x.last.pid = 0;
  x.last.load = {};
  x.last.gpus.clear();
  auto spent = failed_start ? x.failed_starts > x.spec.start_retries
                            : x.restarts.size() >= x.spec.restarts_max;
  spent |= x.is_hopeless && !x.has_served;
  if (spent) {
    x.now = phase::failed;
    x.last.budget_spent = true;
  } else {
    auto pause = pause_before_restart(x, now);
    if (!failed_start)
      x.restarts.push_back(now);
    x.now = phase::waiting;
    x.start_at = now + pause;
  }
  tell(x, out);
  if (x.now == phase::waiting && x.start_at <= now) {
    ++x.last.restarts;
    launch(x, now, out);
  }
}

/// Its process is gone as it should be, or never was.
void supervisor::forget(replica_map::iterator i, clock::time_point now,
                        commands& out) {
  auto& x = i->second;
  x.last.phase = replica_phase::stopped;
  x.last.reason.clear();
  x.last.pid = 0;
  x.last.load = {};
  tell(x, out);
  auto next = std::move(x.next);
  replicas_.erase(i);
  if (next && !draining_)
    keep(std::move(*next), now, out);
  else if (draining_ && replicas_.empty())
    out.push_back(all_stopped{});
}

bool supervisor::knows(const replica_report& report) const {
  auto i = replicas_.find(report.replica);
  return i != replicas_.end() && report.incarnation != 0 &&
         i->second.incarnation == report.incarnation;
}

commands supervisor::report(replica_report report, clock::time_point now) {
  commands out;
  forgive_standstill(now);
  if (!knows(report))
    return out;
  auto& x = replicas_.at(report.replica);
  if (x.heard && report.load.sequence != 0 &&
      report.load.sequence <= x.last.load.sequence)
    return out; // overtaken
  x.heard = true;
  x.heard_at = now;
  note_progress(x, report.load, now, out);
  if (report.phase == replica_phase::ready && !x.was_ready) {
    x.was_ready = true;
    x.has_served = true;
    x.ready_at = now;
    x.failed_starts = 0;
  }
  if (x.now == phase::stopping && report.phase != replica_phase::failed)
    report.phase = replica_phase::draining; // whether it knows yet or not
  report.pid = x.last.pid;
  report.restarts = x.last.restarts;
  x.is_hopeless = report.phase == replica_phase::failed && report.budget_spent;
  report.budget_spent = false; // until its process has ended
  x.last = std::move(report);
  tell(x, out);
  return out;
}

/// A replica stalls if its word is that it has requests, running or waiting,
/// but no step was made: its silence is another matter (`watch`).
void supervisor::note_progress(replica& x, const protocol::replica_load& load,
                               clock::time_point now, commands& out) {
  if ((load.running == 0 && load.waiting == 0) || load.steps != x.step) {
    x.step = load.steps;
    x.step_at = now;
  } else if (x.now == phase::running && x.killed_because.empty() &&
             now >= x.step_at + stall_max(x.spec, load)) {
    kill(x, "it made no step while requests were running", out);
  }
}

void supervisor::forgive_standstill(clock::time_point now) {
  auto last = std::exchange(awake_at_, now);
  if (!last || now - *last < limits_.standstill)
    return;
  for (auto& [id, x] : replicas_) {
    x.heard_at = std::min(now, x.heard_at + (now - *last));
    x.step_at = std::min(now, x.step_at + (now - *last));
  }
}

commands supervisor::tick(clock::time_point now) {
  commands out;
  forgive_standstill(now);
  for (auto& [id, x] : replicas_) {
    if (x.now == phase::waiting && x.start_at <= now) {
      ++x.last.restarts;
      launch(x, now, out);
    } else if (x.now == phase::running || x.now == phase::stopping) {
      watch(x, now, out);
    }
  }
  return out;
}

/// Signals a process that does not do what it should.
void supervisor::watch(replica& x, clock::time_point now, commands& out) {
  if (x.now == phase::stopping) {
    // One that is silent will not finish anything: there is nothing to wait
    // for.
    auto silent = x.heard && x.kill_at != clock::time_point::max() &&
                  now >= x.heard_at + silence_max(x.spec);
    if (now >= x.kill_at || silent) {
      x.kill_at = clock::time_point::max();
      x.terminate_at = clock::time_point::max();
      out.push_back(signal_process{x.incarnation, SIGKILL});
    } else if (now >= x.terminate_at) {
      x.terminate_at = clock::time_point::max();
      out.push_back(signal_process{x.incarnation, SIGTERM});
    }
  } else if (!x.killed_because.empty()) {
    return; // its end is on the way
  } else if (!x.heard && now >= x.heard_at + limits_.register_max) {
    kill(x, "it did not register in time", out);
  } else if (x.heard && now >= x.heard_at + silence_max(x.spec)) {
    kill(x, "it stopped reporting", out);
  }
}

void supervisor::kill(replica& x, std::string why, commands& out) {
  x.killed_because = std::move(why);
  out.push_back(signal_process{x.incarnation, SIGKILL});
}

commands supervisor::end(std::uint64_t incarnation, const std::string& why) {
  commands out;
  auto* x = find(incarnation);
  if (x == nullptr || !x->killed_because.empty())
    return out;
  if (x->last.phase == replica_phase::failed)
    return out; // it has said why, and ends by itself
  kill(*x, why, out);
  return out;
}

void supervisor::tell(replica& x, commands& out) {
  out.push_back(send_report{x.last});
}

std::vector<protocol::running_replica> supervisor::replicas() const {
  std::vector<protocol::running_replica> out;
  for (const auto& [id, x] : replicas_)
    out.push_back({x.spec, x.last});
  return out;
}

const replica_spec* supervisor::spec_of(std::uint64_t incarnation) const {
  for (const auto& [id, x] : replicas_)
    if (incarnation != 0 && x.incarnation == incarnation)
      return &x.spec;
  return nullptr;
}

supervisor::replica* supervisor::find(std::uint64_t incarnation) {
  for (auto& [id, x] : replicas_)
    if (incarnation != 0 && x.incarnation == incarnation)
      return &x;
  return nullptr;
}

} // namespace troupe::node_agent
