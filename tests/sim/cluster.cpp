#include "tests/sim/cluster.hpp"

#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t head_port = 6381;
constexpr double drift_max = 0.005;
constexpr nanoseconds today = std::chrono::hours{24} * 19'700; ///< since 1970

/// Peers that were not heard for so long are given up.
constexpr nanoseconds silence_max = 1s;

} // namespace

cluster::cluster(sim::world& w)
    : world_(w), network_(w, processes_), disk_(w), ledger_(w), reports_(w) {
  own_ = 2 + w.below(4);
  for (std::size_t i = 0; i < own_; ++i)
    places_.push_back(make_place(i == 0 ? "head" : "worker" + std::to_string(i),
                                 static_cast<std::uint32_t>(1 + w.below(3))));
  engine_.sequences_max = static_cast<std::uint32_t>(2 + w.below(6));
  engine_.step_time = w.between(4ms, 30ms);
  engine_.rows_max = static_cast<std::uint32_t>(16 + w.below(64));
  engine_.blocks = static_cast<std::uint32_t>(64 + w.below(200));
  if (w.chance(0.4))
    provider_ = std::make_unique<simulated_provider>(
        w, processes_, disk_,
        [this](const auto& name, auto cpus) { return bring(name, cpus); });
}

cluster::place cluster::make_place(std::string name, std::uint32_t cpus) {
  place made;
  made.self.node = std::move(name);
  made.host = static_cast<host_id>(places_.size() + 1);
  made.self.address = network::address_of(made.host);
  made.self.cpus = cpus;
  made.self.memory_bytes = 1ull << 34;
  made.self.engines = {"cpu"};
  made.self.resources = {{"CPU", static_cast<double>(cpus)},
                         {"memory", static_cast<double>(1ull << 34)}};
  made.clock.at_start = world_.between(1s, 1000s);
  made.clock.rate =
      1 + drift_max * (static_cast<double>(world_.below(2001)) / 1000 - 1);
  made.clock.wall_at_start = today + world_.between(0s, 24h);
  made.arithmetic_class = world_.chance(0.2) ? "class b" : "class a";
  return made;
}

process_id cluster::bring(const std::string& name, std::uint32_t cpus) {
  places_.push_back(make_place(name, cpus));
  start(places_.size() - 1);
  return places_.back().process;
}

std::uint32_t cluster::cpus() const {
  std::uint32_t out = provider_ ? provider_->cpus() : 0;
  for (std::size_t i = 0; i < own_; ++i)
    out += places_[i].self.cpus;
  return out;
}

std::vector<std::size_t> cluster::members() const {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < places_.size(); ++i)
    if (!is_brought(i) || node(i) != nullptr)
      out.push_back(i);
  return out;
}

void cluster::start(std::size_t node) {
  auto& x = places_[node];
  node_options options;
  options.self = x.self;
  if (node == 0) {
    options.port = head_port;
    options.store = &disk_;
    options.provider = provider_.get();
  } else {
    options.head = protocol::endpoint{places_[0].self.address, head_port, 0, 0};
  }
  options.habits = [this, name = x.arithmetic_class] { return habits(name); };
  auto made = std::make_unique<node_process>(
      surroundings{world_, network_, processes_, reports_}, x.host, x.clock,
      ledger_, std::move(options));
  auto* started = made.get();
  x.process = processes_.add(std::move(made));
  if (x.stopped_at)
    started->freeze();
  started->run([this, started, node] {
    if (node == 0) // it would not start on a full disk
      disk_.fill(false);
    started->start();
  });
}

std::vector<process*> cluster::processes_on(host_id host) const {
  std::vector<process*> out;
  for (const auto& x : processes_.all())
    if (x->alive() && x->host() == host)
      out.push_back(x.get());
  return out;
}

bool cluster::stop_host(std::size_t node) {
  auto& x = places_[node];
  if (x.stopped_at)
    return false;
  world_.trace("stop host", x.self.node);
  x.stopped_at = x.clock.read(world_.now());
  for (auto* one : processes_on(x.host))
    one->freeze();
  return true;
}

void cluster::resume_host(std::size_t node, nanoseconds leap, bool unaware) {
  auto& x = places_[node];
  auto gone = x.clock.read(world_.now()) - *x.stopped_at;
  world_.trace("resume host", x.self.node, leap.count(), unaware);
  x.clock.at_start += unaware ? -gone : leap;
  x.stopped_at.reset();
  if (!unaware)
    ledger_.leapt(leap);
  for (auto* one : processes_on(x.host)) {
    one->thaw();
    one->clock_leapt();
    if (!unaware && gone + leap > silence_max)
      network_.leapt(one->id());
  }
}

std::optional<engine_habits>
cluster::habits(const std::string& arithmetic_class) {
  if (world_.chance(starts.cannot_spawn))
    return std::nullopt;
  engine_habits out;
  out.engine = engine_;
  out.load_time = world_.between(20ms, 600ms);
  out.loads = !world_.chance(starts.cannot_load);
  out.arithmetic_class = arithmetic_class;
  out.version = replica_version;
  return out;
}

node_process* cluster::node(std::size_t node) const {
  return static_cast<node_process*>(
      processes_.find_living(places_[node].process));
}

controller_shell* cluster::controller() const {
  auto* head = node(0);
  return head == nullptr ? nullptr : head->controller();
}

std::vector<replica_process*> cluster::replicas() const {
  std::vector<replica_process*> out;
  for (const auto& x : processes_.all())
    if (x->alive())
      if (auto* replica = dynamic_cast<replica_process*>(x.get()))
        out.push_back(replica);
  return out;
}

} // namespace troupe::sim
