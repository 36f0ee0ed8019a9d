#include "tests/sim/network.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds silence_max = 1s;
constexpr nanoseconds heartbeat = 200ms;
constexpr nanoseconds unsent_max = 1ms; ///< in the sender's own memory

host_id host_of(const std::string& address) {
  return static_cast<host_id>(
      std::stoul(address.substr(address.rfind('.') + 1)));
}

} // namespace

std::string network::address_of(host_id host) {
  return "10.0.0." + std::to_string(host);
}

std::uint16_t network::listen(process_id id, std::uint16_t port) {
  place where{processes_.at(id).host(), port};
  auto taken = [&] {
    return where.port == 0 || (listeners_.contains(where) &&
                               processes_.find_living(listeners_[where]));
  };
  while (taken())
    where.port = static_cast<std::uint16_t>(40'000 + world_.below(64));
  listeners_[where] = id;
  return where.port;
}

std::optional<link_id> network::find_link(process_id a, process_id b) const {
  auto mine = links_of_.find(a);
  if (mine == links_of_.end())
    return std::nullopt;
  for (auto i = mine->second.rbegin(); i != mine->second.rend(); ++i) {
    const auto& x = links_[*i - 1];
    std::size_t end = x.ends[0] == a ? 0 : 1;
    if (x.ends[1 - end] == b && !x.closed[end])
      return *i;
  }
  return std::nullopt;
}

process_id network::peer_of(link_id id, process_id self) const {
  const auto& x = links_[id - 1];
  return x.ends[0] == self ? x.ends[1] : x.ends[0];
}

bool network::is_open(link_id id, process_id self) const {
  const auto& x = links_[id - 1];
  return !x.closed[x.ends[0] == self ? 0 : 1];
}

nanoseconds network::delay(host_id from, host_id to) {
  auto out =
      from == to ? world_.between(20us, 300us) : world_.between(100us, 2ms);
  return more_delay_.count() > 0 ? out + world_.between(0ns, more_delay_) : out;
}

void network::connect(process_id from, const protocol::endpoint& where,
                      nanoseconds timeout,
                      std::function<void(std::optional<link_id>)> done) {
  try_connect(from, {host_of(where.address), where.port},
              world_.now() + timeout, 0, std::move(done));
}

/// A packet that nobody answers is sent again after one second, then two, ...
void network::try_connect(process_id from, place to, instant deadline,
                          int attempt,
                          std::function<void(std::optional<link_id>)> done) {
  auto here = processes_.at(from).host();
  auto there_and_back = 2 * (delay(here, to.host) + delay(to.host, here));
  world_.after(there_and_back, [=, this, done = std::move(done)]() mutable {
    auto* self = processes_.find_living(from);
    if (self == nullptr)
      return;
    auto say = [&](std::optional<link_id> outcome) {
      self->run([done = std::move(done), outcome] { done(outcome); });
    };
    auto here = self->host();
    auto listener = listeners_.find(to);
    auto* peer = listener == listeners_.end()
                     ? nullptr
                     : processes_.find_living(listener->second);
    auto silent = blocked(here, to.host) || blocked(to.host, here) ||
                  (peer != nullptr && peer->frozen());
    if (silent) {
      auto pause =
          std::min<nanoseconds>(1s * (1 << attempt), deadline - world_.now());
      if (pause <= 0ns)
        say(std::nullopt);
      else
        world_.after(pause, [=, this, done = std::move(done)]() mutable {
          try_connect(from, to, deadline, attempt + 1, std::move(done));
        });
    } else if (peer == nullptr || peer == self || world_.chance(refused_)) {
      say(std::nullopt);
    } else if (auto there_is = find_link(from, peer->id())) {
      say(there_is);
    } else {
      link made;
      made.ends = {from, peer->id()};
      links_.push_back(std::move(made));
      auto id = static_cast<link_id>(links_.size());
      links_of_[from].push_back(id);
      links_of_[peer->id()].push_back(id);
      world_.trace("connected", id, self->name(), from, peer->name(),
                   peer->id());
      say(id);
    }
  });
}

void network::send(process_id from, link_id id, message what) {
  auto& x = at(id);
  int to = x.ends[0] == from ? 1 : 0;
  auto& way = x.lanes[static_cast<std::size_t>(to)];
  if (x.closed[static_cast<std::size_t>(1 - to)])
    return;
  if (x.lost && way.passes == 0) {
    ++counts_.lost;
    return;
  }
  way.passes -= x.lost ? 1 : 0;
  way.on_the_way.push_back({world_.now(), std::move(what)});
  plan_arrival(id, to);
}

void network::plan_arrival(link_id id, int to) {
  auto& x = at(id);
  auto& way = x.lanes[static_cast<std::size_t>(to)];
  auto when =
      world_.now() + delay(end_of(x, 1 - to).host(), end_of(x, to).host());
  way.clear_at = std::max(way.clear_at, when);
  ++way.due;
  world_.after(way.clear_at - world_.now(), [this, id, to] { arrive(id, to); });
}

/// What cannot pass now is planned again when the way is free (unblock).
void network::arrive(link_id id, int to) {
  auto& x = at(id);
  auto end = static_cast<std::size_t>(to);
  auto& way = x.lanes[end];
  if (world_.now() < way.held_until) {
    world_.after(way.held_until - world_.now(),
                 [this, id, to] { arrive(id, to); });
    return;
  }
  --way.due;
  if (x.closed[end] || lane_blocked(x, to))
    return;
  auto& receiver = end_of(x, to);
  if (way.on_the_way.empty()) {
    if (way.ends)
      close(id, to, false);
    return;
  }
  auto next = std::move(way.on_the_way.front().what);
  way.on_the_way.pop_front();
  note_arrival(id);
  world_.trace("message", static_cast<int>(next.what), id, receiver.name(),
               next.number, next.a, next.b, next.body.size());
  receiver.receive(id, std::move(next));
}

void network::note_arrival(link_id id) {
  ++counts_.arrived;
  auto [a, b] = at(id).ends;
  auto& newest = newest_[std::minmax(a, b)];
  if (id < newest)
    ++counts_.overtaken;
  newest = std::max(newest, id);
}

bool network::lane_blocked(const link& x, int to) const {
  return blocked(end_of(x, 1 - to).host(), end_of(x, to).host());
}

/// Whether its receiver hears nothing any more, not even a heartbeat.
bool network::is_silent(const link& x, int to) const {
  auto& sender = end_of(x, 1 - to);
  return x.lost || lane_blocked(x, to) || !sender.alive() || sender.frozen() ||
         x.closed[static_cast<std::size_t>(1 - to)];
}

void network::watch_silence(link_id id, int to) {
  auto& x = at(id);
  auto& way = x.lanes[static_cast<std::size_t>(to)];
  if (x.closed[static_cast<std::size_t>(to)])
    return;
  if (!is_silent(x, to)) {
    way.silent_since = instant{-1};
    return;
  }
  if (way.silent_since >= 0ns)
    return; // being watched
  auto since = way.silent_since = world_.now();
  world_.after(silence_max + world_.between(0ns, heartbeat),
               [this, id, to, since] { check_silence(id, to, since); });
}

void network::check_silence(link_id id, int to, instant since) {
  auto& x = at(id);
  auto end = static_cast<std::size_t>(to);
  if (x.closed[end] || x.lanes[end].silent_since != since ||
      end_of(x, to).frozen()) // went_on() looks again
    return;
  close(id, to, true);
}

/// This end takes the connection for lost. With `tell` it closes it, which the
/// other end hears behind what is on the way to it.
void network::close(link_id id, int end, bool tell) {
  auto& x = at(id);
  auto here = static_cast<std::size_t>(end);
  if (x.closed[here])
    return;
  x.closed[here] = true;
  drop(x.lanes[here], 0);
  world_.trace("down", id, end_of(x, end).name(), x.ends[here]);
  auto& away = x.lanes[1 - here];
  if (!x.lost && (tell || !away.ends)) {
    away.ends = true;
    plan_arrival(id, 1 - end);
    watch_silence(id, 1 - end);
  }
  end_of(x, end).hear_down(id);
}

/// All but the first ones are lost.
void network::drop(lane& way, std::size_t kept) {
  counts_.lost += way.on_the_way.size() - kept;
  way.on_the_way.resize(kept);
}

void network::lose_connection() {
  std::vector<link_id> open;
  for (link_id id = 1; id <= links_.size(); ++id) {
    const auto& x = at(id);
    if (!x.lost && !x.closed[0] && !x.closed[1] &&
        end_of(x, 0).host() != end_of(x, 1).host())
      open.push_back(id);
  }
  if (open.empty())
    return;
  auto id = world_.pick(open);
  auto& x = at(id);
  world_.trace("lost connection", id);
  x.lost = true;
  for (int to : {0, 1}) {
    auto& way = x.lanes[static_cast<std::size_t>(to)];
    auto here = way.on_the_way.size();
    auto pass = world_.below(here + 8);
    drop(way, std::min(here, pass));
    way.passes = pass - std::min(here, pass);
    way.held_until = world_.now() + world_.between(0ms, 900ms);
    watch_silence(id, to);
    if (world_.chance(0.5))
      world_.after(world_.between(0ms, 300ms), [this, id, to] {
        if (!end_of(at(id), to).frozen())
          close(id, to, false);
      });
  }
}

void network::notice_lost() {
  for (link_id id = 1; id <= links_.size(); ++id)
    if (at(id).lost)
      for (int end : {0, 1})
        close(id, end, false);
}

void network::block(host_id from, host_id to) {
  ++blocks_[{from, to}];
  for (link_id id = 1; id <= links_.size(); ++id)
    for (int way : {0, 1})
      watch_silence(id, way);
}

void network::unblock(host_id from, host_id to) {
  if (--blocks_[{from, to}] > 0)
    return;
  for (link_id id = 1; id <= links_.size(); ++id) {
    for (int way : {0, 1}) {
      auto& x = at(id);
      auto& lane = x.lanes[static_cast<std::size_t>(way)];
      watch_silence(id, way);
      if (x.closed[static_cast<std::size_t>(way)] || lane_blocked(x, way))
        continue;
      auto waiting = lane.on_the_way.size() + (lane.ends ? 1 : 0);
      while (lane.due < waiting)
        plan_arrival(id, way);
    }
  }
}

bool network::blocked(host_id from, host_id to) const {
  auto found = blocks_.find({from, to});
  return from != to && found != blocks_.end() && found->second > 0;
}

void network::stopped(process_id id) {
  look_again(id);
}

void network::went_on(process_id id) {
  look_again(id);
  for (auto link : links_of_[id]) {
    auto& x = at(link);
    int end = x.ends[0] == id ? 0 : 1;
    auto since = x.lanes[static_cast<std::size_t>(end)].silent_since;
    if (since >= 0ns && since + silence_max <= world_.now())
      world_.after(world_.between(0ns, heartbeat), [this, link, end, since] {
        check_silence(link, end, since);
      });
  }
}

void network::leapt(process_id id) {
  auto all = links_of_[id];
  for (auto link : all)
    if (world_.chance(0.5))
      close(link, at(link).ends[0] == id ? 0 : 1, true);
}

void network::died(process_id id, bool abruptly) {
  for (auto link : links_of_[id]) {
    auto& x = at(link);
    int end = x.ends[0] == id ? 0 : 1;
    x.closed[static_cast<std::size_t>(end)] = true;
    auto& away = x.lanes[static_cast<std::size_t>(1 - end)];
    auto& words = away.on_the_way;
    while (abruptly && !words.empty() &&
           words.back().sent + unsent_max > world_.now() && world_.chance(0.5))
      drop(away, words.size() - 1);
    if (!x.lost && !away.ends) {
      away.ends = true;
      plan_arrival(link, 1 - end);
    }
  }
  look_again(id);
}

void network::look_again(process_id id) {
  for (auto link : links_of_[id])
    for (int way : {0, 1})
      watch_silence(link, way);
}

} // namespace troupe::sim
