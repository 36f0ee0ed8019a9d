#include "actors/node_agent/agent_machine.hpp"

#include <algorithm>
#include <csignal>
#include <iterator>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

namespace troupe::node_agent {

using protocol::replica_report;

namespace {

/// What a process can only do to itself, as far as the node agent is concerned:
/// it sends none of these.
bool is_own_fault(const process_end& end) {
  constexpr int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
  return std::find(std::begin(faults), std::end(faults), end.signal) !=
         std::end(faults);
}

/// It ended by itself, maybe because of ranks that did on other nodes.
bool may_follow_others(const protocol::replica_spec& spec,
                       const process_end& end) {
  return !spec.ranks_on.empty() && end.signal == 0 && end.exit_code != 0;
}

void append(agent_commands& to, agent_commands from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()),
            std::make_move_iterator(from.end()));
}

} // namespace

agent_machine::agent_machine(protocol::node_joined self,
                             supervision_limits supervision,
                             head_link_limits limits, std::uint64_t seed,
                             clock::time_point now)
    : self_(std::move(self)), supervisor_(std::move(supervision), seed),
      parts_(~seed), limits_(limits), act_at_(now) {
  // nop
}

// -- the head
// ------------------------------------------------------------------

agent_commands agent_machine::head_connected(clock::time_point now) {
  if (phase_ == phase::connecting)
    return registration(now);
  if (phase_ == phase::waiting)
    return {leave_head{}}; // too late
  return {};
}

agent_commands agent_machine::registration(clock::time_point now) {
  phase_ = phase::registering;
  act_at_ = now + limits_.answer_max;
  early_.reset();
  auto node = self_;
  node.head_epoch = head_epoch_;
  node.replicas = registered_ = replicas();
  node.attempt = ++registrations_;
  return {register_node{std::move(node)}};
}

agent_commands agent_machine::head_unreachable(clock::time_point now) {
  if (phase_ != phase::connecting)
    return {};
  phase_ = phase::waiting;
  act_at_ = now + limits_.retry;
  return {};
}

agent_commands agent_machine::head_lost(clock::time_point now) {
  if (phase_ != phase::registering && phase_ != phase::joined)
    return {};
  return try_again(now);
}

agent_commands agent_machine::try_again(clock::time_point now) {
  phase_ = phase::waiting;
  act_at_ = now + limits_.retry;
  return {leave_head{}};
}

/// The answer to an earlier registration can come after a later one was sent;
/// then the later answer is newer.
bool agent_machine::is_newer(const protocol::node_welcome& x) const {
  return x.head_epoch > head_epoch_ ||
         (x.head_epoch == head_epoch_ && x.node_epoch > node_epoch_);
}

agent_commands agent_machine::welcomed(const protocol::node_welcome& welcome,
                                       clock::time_point now) {
  if (phase_ != phase::registering && phase_ != phase::joined)
    return {};
  if (phase_ == phase::registering || is_newer(welcome))
    head_version_ =
        welcome.version != 0 ? welcome.version : protocol::protocol_version - 1;
  if (!welcome.accepted || !is_newer(welcome))
    return phase_ == phase::registering ? try_again(now) : agent_commands{};
  phase_ = phase::joined;
  head_epoch_ = welcome.head_epoch;
  node_epoch_ = welcome.node_epoch;
  sequence_.reset();
  auto out = tell_all();
  if (auto early = std::exchange(early_, std::nullopt))
    append(out, assigned(*early, now));
  return out;
}

agent_commands agent_machine::assigned(const protocol::node_assignment& x,
                                       clock::time_point now) {
  if (phase_ == phase::registering)
    early_ = x;
  if (phase_ != phase::joined || x.head_epoch != head_epoch_ ||
      x.node_epoch != node_epoch_ || (sequence_ && x.sequence <= *sequence_))
    return {};
  sequence_ = x.sequence;
  agent_commands out;
  if (x.revoked != revoked_) {
    revoked_ = x.revoked;
    out.push_back(know_revoked{x.revoked});
  }
  std::vector<protocol::replica_spec> whole, parts;
  for (const auto& spec : x.replicas)
    (spec.part == 0 ? whole : parts).push_back(spec);
  append(out, translate(supervisor_.assign(std::move(whole), now)));
  append(out, translate(parts_.assign(std::move(parts), now)));
  if (x.router != router_wanted_) {
    router_wanted_ = x.router;
    out.push_back(want_router{x.router});
  }
  return out;
}

// -- replicas
// ------------------------------------------------------------------

agent_commands agent_machine::spawned(std::uint64_t incarnation,
                                      std::int64_t pid) {
  return translate(supervisor_.spawned(incarnation, pid));
}

agent_commands agent_machine::ended(
    std::uint64_t incarnation, const process_end& end,
    const std::vector<std::pair<std::uint64_t, std::uint64_t>>& running,
    clock::time_point now) {
  if (const auto* part = parts_.spec_of(incarnation))
    return part_ended(*part, incarnation, end, now);
  agent_commands out;
  const auto* spec = supervisor_.spec_of(incarnation);
  auto said = ends_elsewhere_.extract(incarnation);
  if (spec && end.not_spawned.empty()) {
    protocol::death_notice notice;
    notice.node = self_.node;
    notice.replica = spec->replica;
    notice.incarnation = incarnation;
    notice.own_fault = is_own_fault(end);
    notice.running = running;
    notice.reason = end.to_string();
    if (said && said.mapped().own_fault) {
      notice.own_fault = true;
      notice.reason = std::move(said.mapped().why);
    }
    if (!notice.own_fault && !said && !leaving_ &&
        may_follow_others(*spec, end))
      held_[incarnation] = {std::move(notice), now + limits_.word_max};
    else
      out.push_back(word_on(std::move(notice)));
  }
  append(out, translate(supervisor_.ended(incarnation, end, now)));
  return out;
}

send_death agent_machine::word_on(protocol::death_notice notice) const {
  notice.node_epoch = node_epoch_;
  if (!notice.own_fault)
    notice.running.clear();
  return {std::move(notice)};
}

/// Nobody has said why ranks elsewhere ended.
agent_commands agent_machine::tell_held(clock::time_point now) {
  agent_commands out;
  std::erase_if(held_, [&](auto& entry) {
    auto& [notice, until] = entry.second;
    if (now < until)
      return false;
    out.push_back(word_on(std::move(notice)));
    return true;
  });
  return out;
}

/// The replica's ranks on other nodes may wait for these, and are told.
agent_commands agent_machine::part_ended(const protocol::replica_spec& part,
                                         std::uint64_t incarnation,
                                         const process_end& end,
                                         clock::time_point now) {
  agent_commands out;
  out.push_back(send_rank_word{{self_.node,
                                node_epoch_,
                                protocol::replica_of_part(part.replica),
                                part.leader,
                                {},
                                end.to_string(),
                                is_own_fault(end)}});
  append(out, translate(parts_.ended(incarnation, end, now)));
  if (leaving_ && empty())
    out.push_back(all_stopped{});
  return out;
}

agent_commands agent_machine::ranks_ended(std::uint64_t incarnation,
                                          const std::string& why,
                                          bool own_fault) {
  agent_commands out;
  if (supervisor_.spec_of(incarnation) != nullptr) {
    auto& said = ends_elsewhere_[incarnation];
    if (said.why.empty() || (own_fault && !said.own_fault))
      said = {own_fault, why};
  }
  if (auto held = held_.find(incarnation); held != held_.end()) {
    auto& notice = held->second.first;
    if (own_fault) {
      notice.own_fault = true;
      notice.reason = why;
    }
    out.push_back(word_on(std::move(notice)));
    held_.erase(held);
  }
  append(out, translate(supervisor_.end(incarnation, why)));
  return out;
}

agent_commands agent_machine::see_gpus(const gpu_look& look) {
  return translate(parts_.see_gpus(look));
}

bool agent_machine::knows(const replica_report& x) const {
  return supervisor_.knows(x);
}

agent_commands agent_machine::report(replica_report x, clock::time_point now) {
  return translate(supervisor_.report(std::move(x), now));
}

agent_commands agent_machine::router_port(std::uint16_t port,
                                          clock::time_point now) {
  if (self_.http_port == port)
    return {};
  self_.http_port = port;
  if (phase_ != phase::registering && phase_ != phase::joined)
    return {};
  return registration(now);
}

agent_commands agent_machine::drain(milliseconds time_max,
                                    clock::time_point now) {
  leaving_ = true;
  auto out = translate(parts_.drain(time_max, now));
  append(out, translate(supervisor_.drain(time_max, now)));
  return out;
}

agent_commands agent_machine::tick(clock::time_point now) {
  agent_commands out;
  if (now >= act_at_) {
    if (phase_ == phase::waiting) {
      phase_ = phase::connecting;
      out.push_back(connect_head{});
    } else if (phase_ == phase::registering) {
      out = try_again(now);
    }
  }
  append(out, tell_held(now));
  append(out, translate(supervisor_.tick(now)));
  append(out, translate(parts_.tick(now)));
  return out;
}

// -- what is said
// --------------------------------------------------------------

/// The supervisor's commands with its reports as news for the head, or left out
/// where there is none: it hears of everything when it is met again.
agent_commands agent_machine::translate(commands from) const {
  agent_commands out;
  auto take = [&](auto& x) {
    using type = std::decay_t<decltype(x)>;
    if (std::is_same_v<type, all_stopped> && !parts_.empty())
      return; // nor is it, before those have ended
    if constexpr (!std::is_same_v<type, send_report>)
      out.push_back(std::move(x));
    else if (phase_ == phase::joined)
      out.push_back(send_news{news_of(std::move(x.report))});
  };
  for (auto& x : from)
    std::visit(take, x);
  return out;
}

protocol::replica_news agent_machine::news_of(replica_report report) const {
  report.node = self_.node;
  return {self_.node, node_epoch_, std::move(report), leaving_};
}

agent_commands agent_machine::tell_all() const {
  agent_commands out;
  std::set<std::string> here;
  for (auto& x : replicas()) {
    here.insert(x.report.replica);
    out.push_back(send_news{news_of(std::move(x.report))});
  }
  for (auto x : registered_)
    if (!here.contains(x.report.replica)) {
      x.report.phase = protocol::replica_phase::stopped;
      out.push_back(send_news{news_of(std::move(x.report))});
    }
  return out;
}

std::vector<protocol::running_replica> agent_machine::replicas() const {
  auto out = supervisor_.replicas();
  for (auto& x : parts_.parts())
    out.push_back(std::move(x));
  for (auto& x : out)
    x.report.node = self_.node;
  return out;
}

} // namespace troupe::node_agent
