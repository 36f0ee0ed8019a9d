#include "actors/node_agent/rank_parts.hpp"

#include <algorithm>
#include <csignal>
#include <set>
#include <utility>

namespace troupe::node_agent {

using protocol::replica_phase;

namespace {

/// For the replica's own end after it has drained.
constexpr milliseconds end_max{2'000};

} // namespace

rank_parts::rank_parts(std::uint64_t seed) : random_(seed) {
  // nop
}

std::uint64_t rank_parts::number() {
  std::uint64_t out = 0;
  while (out == 0)
    out = random_();
  return out;
}

commands rank_parts::assign(std::vector<protocol::replica_spec> wanted,
                            clock::time_point now) {
  commands out;
  std::set<std::string> named;
  for (auto& spec : wanted) {
    if (draining_ || !named.insert(spec.replica).second)
      continue;
    auto& one = parts_[spec.replica];
    one.spec = std::move(spec);
    if (!std::exchange(one.wanted, true))
      one.last.phase = replica_phase::starting; // it does not end any more
    one.kill_at.reset();
    if (one.incarnation == 0)
      follow(one, out);
    else if (one.running.leader != one.spec.leader)
      out.push_back(signal_process{one.incarnation, SIGKILL});
  }
  for (auto i = parts_.begin(); i != parts_.end();) {
    auto& one = i->second;
    if (!named.contains(i->first) && one.incarnation == 0) {
      one.last.phase = replica_phase::stopped;
      out.push_back(send_report{one.last});
      i = parts_.erase(i);
      continue;
    }
    if (!named.contains(i->first) && one.wanted)
      give_up(one,
              milliseconds{one.spec.graceful_shutdown_timeout_ms} + end_max,
              now);
    ++i;
  }
  return out;
}

/// Starts what is to follow the leader, once for each.
void rank_parts::follow(part& one, commands& out) {
  one.last.replica = one.spec.replica;
  if (one.spec.leader == 0 || one.spec.leader == one.followed)
    return;
  one.followed = one.spec.leader;
  one.incarnation = number();
  one.running = one.spec;
  one.last.incarnation = one.incarnation;
  one.last.phase = replica_phase::starting;
  one.last.reason.clear();
  one.last.gpus.clear();
  out.push_back(spawn_process{one.incarnation, one.spec});
  out.push_back(send_report{one.last});
}

void rank_parts::give_up(part& one, milliseconds time_max,
                         clock::time_point now) {
  one.wanted = false;
  one.last.phase = replica_phase::draining;
  one.kill_at =
      std::min(one.kill_at.value_or(clock::time_point::max()), now + time_max);
}

commands rank_parts::drain(milliseconds time_max, clock::time_point now) {
  draining_ = true;
  commands out;
  for (auto i = parts_.begin(); i != parts_.end();) {
    auto& one = i->second;
    if (one.incarnation != 0) {
      // The replica's own node has to hear of it; and some time is left for
      // what comes after the last kill.
      give_up(one, time_max * 9 / 10, now);
      out.push_back(send_report{one.last});
      ++i;
    } else {
      one.last.phase = replica_phase::stopped;
      out.push_back(send_report{one.last});
      i = parts_.erase(i);
    }
  }
  return out;
}

commands rank_parts::ended(std::uint64_t incarnation, const process_end& how,
                           clock::time_point) {
  commands out;
  auto i = std::find_if(parts_.begin(), parts_.end(), [&](const auto& entry) {
    return entry.second.incarnation == incarnation;
  });
  if (incarnation == 0 || i == parts_.end())
    return out;
  auto& one = i->second;
  one.incarnation = 0;
  one.last.phase = one.wanted ? replica_phase::failed : replica_phase::stopped;
  one.last.reason = how.to_string();
  one.last.gpus.clear();
  out.push_back(send_report{one.last});
  if (!one.wanted)
    parts_.erase(i);
  else
    follow(one, out);
  return out;
}

commands rank_parts::see_gpus(const gpu_look& look) {
  commands out;
  for (auto& [id, one] : parts_) {
    if (one.incarnation == 0)
      continue;
    auto seen = look(one.incarnation);
    if (seen == one.last.gpus)
      continue;
    one.last.gpus = std::move(seen);
    out.push_back(send_report{one.last});
  }
  return out;
}

commands rank_parts::tick(clock::time_point now) {
  commands out;
  for (auto& [id, one] : parts_)
    if (one.kill_at && now >= *one.kill_at) {
      one.kill_at.reset();
      out.push_back(signal_process{one.incarnation, SIGKILL});
    }
  return out;
}

std::vector<protocol::running_replica> rank_parts::parts() const {
  std::vector<protocol::running_replica> out;
  for (const auto& [id, one] : parts_)
    out.push_back({one.incarnation == 0 ? one.spec : one.running, one.last});
  return out;
}

const protocol::replica_spec*
rank_parts::spec_of(std::uint64_t incarnation) const {
  for (const auto& [id, one] : parts_)
    if (incarnation != 0 && one.incarnation == incarnation)
      return &one.running;
  return nullptr;
}

} // namespace troupe::node_agent
