#include "actors/controller/controller_machine.hpp"
#include "router/request_table.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>
#include <variant>
#include <vector>

// What placement, routing tables and the controller's steps cost in a large
// cluster, and that no step grows faster than linearly. The measure is the
// number of allocations, which is the same on every machine; times are printed
// only.

namespace {

std::uint64_t allocations = 0;

} // namespace

// The compiler must not see through them: it would find that what `new` gave is
// freed by `free`.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (auto* out = std::malloc(size == 0 ? 1 : size))
    return out;
  throw std::bad_alloc{};
}
[[gnu::noinline]] void operator delete(void* what) noexcept {
  std::free(what);
}
[[gnu::noinline]] void operator delete(void* what, std::size_t) noexcept {
  std::free(what);
}

namespace {

using namespace troupe;
using controller::controller_machine;
using steady = std::chrono::steady_clock;

constexpr std::uint32_t replicas_per_node = 8;

struct cost {
  const char* step;
  std::uint64_t allocations = 0;
  double milliseconds = 0;
};

template <class Step>
cost measure(const char* name, Step step) {
  auto before = allocations;
  auto begin = steady::now();
  step();
  cost out{name};
  out.milliseconds =
      std::chrono::duration<double, std::milli>(steady::now() - begin).count();
  out.allocations = allocations - before;
  return out;
}

std::string node_name(std::uint32_t i) {
  return "node" + std::to_string(i);
}

/// A cluster in which all is as wanted, and what it takes to get it there.
class large_cluster {
public:
  explicit large_cluster(std::uint32_t nodes)
      : nodes_(nodes), machine_(1, {}, {}, now_) {
    wanted_.models.resize(1);
    auto& model = wanted_.models.front();
    model.spec.application = "app";
    model.spec.model = "model";
    model.demand.bundles = {{{"CPU", 1.0}}};
    model.replicas = nodes * replicas_per_node;
  }

  std::vector<cost> life() {
    std::vector<cost> out;
    for (std::uint32_t i = 0; i < nodes_; ++i)
      join(i);
    out.push_back(measure("place all replicas",
                          [&] { take(machine_.deploy(wanted_, now_)); }));
    ready_all();
    advance();
    out.push_back(measure("one report", [&] {
      report(assignments_.front().replicas.front(), 1);
    }));
    out.push_back(measure("an equal deployment",
                          [&] { take(machine_.deploy(wanted_, now_)); }));
    wanted_.models.front().spec.max_ongoing_requests = 7;
    out.push_back(measure("a change in place",
                          [&] { take(machine_.deploy(wanted_, now_)); }));
    protocol::routing_table table;
    out.push_back(
        measure("make the routing table", [&] { table = machine_.table(); }));
    codec::bytes bytes;
    out.push_back(
        measure("encode it", [&] { bytes = protocol::encode(table); }));
    out.push_back(measure(
        "decode it", [&] { table = *protocol::decode_routing_table(bytes); }));
    router::request_table routes{{}, 1, 1};
    out.push_back(measure("a router takes it",
                          [&] { (void)routes.route_by(table, now_); }));
    ++table.version;
    out.push_back(measure("a router takes the next one",
                          [&] { (void)routes.route_by(table, now_); }));
    table_bytes_ = bytes.size();
    routes_ = table.models.front().replicas.size();
    out.push_back(measure("one node lost", [&] {
      (void)machine_.node_lost(node_name(0), epochs_.front(), now_);
    }));
    out.push_back(measure("one node joins", [&] { join(0); }));
    return out;
  }

  std::size_t table_bytes() const {
    return table_bytes_;
  }
  std::size_t routes() const {
    return routes_;
  }

private:
  void advance() {
    now_ += std::chrono::seconds{1};
    take(machine_.tick(now_));
  }

  void take(const controller::commands& orders) {
    for (const auto& order : orders)
      if (const auto* x = std::get_if<controller::send_assignment>(&order))
        assignments_.push_back(x->assignment);
  }

  void join(std::uint32_t i) {
    protocol::node_joined node;
    node.node = node_name(i);
    node.incarnation = i + 1;
    node.cpus = replicas_per_node;
    node.engines = {"cpu"};
    node.resources = {{"CPU", static_cast<double>(replicas_per_node)}};
    controller::commands orders;
    auto welcome = machine_.join(std::move(node), orders, now_);
    take(orders);
    epochs_.resize(nodes_);
    epochs_[i] = welcome.node_epoch;
  }

  void ready_all() {
    std::uint64_t incarnation = 0;
    auto all = std::exchange(assignments_, {});
    for (const auto& assignment : all)
      for (const auto& spec : assignment.replicas) {
        report(spec, ++incarnation);
        now_ += std::chrono::milliseconds{1};
      }
    assignments_ = std::move(all);
    std::erase_if(assignments_,
                  [](const auto& x) { return x.replicas.empty(); });
  }

  void report(const protocol::replica_spec& spec, std::uint64_t incarnation) {
    protocol::replica_news news;
    news.node = spec.node;
    news.node_epoch =
        epochs_[static_cast<std::size_t>(std::stoul(spec.node.substr(4)))];
    news.report.replica = spec.replica;
    news.report.incarnation = incarnation;
    news.report.phase = protocol::replica_phase::ready;
    news.report.where = {"10.0.0.1", 4242, 4243, incarnation};
    news.report.arithmetic_class = "0123456789abcdef";
    news.report.card_hash = std::string(64, 'c');
    take(machine_.report(news, now_));
  }

  std::uint32_t nodes_;
  controller::time_point now_{};
  controller_machine machine_;
  controller::deployment wanted_;
  std::vector<std::uint64_t> epochs_;
  std::vector<protocol::node_assignment> assignments_;
  std::size_t table_bytes_ = 0;
  std::size_t routes_ = 0;
};

} // namespace

int main() {
  constexpr std::uint32_t small = 128;
  constexpr std::uint32_t large = 512;
  constexpr double growth = static_cast<double>(large) / small;
  constexpr double logarithm = 1.25; ///< linear times a logarithm is allowed
  large_cluster one{small};
  large_cluster other{large};
  auto before = one.life();
  auto after = other.life();
  std::printf("%u nodes, %zu replicas in the table (%zu bytes)\n", large,
              other.routes(), other.table_bytes());
  std::printf("%-30s %12s %12s %8s %10s\n", "step", "allocations",
              "at a quarter", "growth", "ms");
  bool good = other.routes() == std::size_t{large} * replicas_per_node;
  for (std::size_t i = 0; i < after.size(); ++i) {
    auto was = static_cast<double>(before[i].allocations);
    auto is = static_cast<double>(after[i].allocations);
    auto linear = is <= was * growth * logarithm + 64;
    good &= linear;
    std::printf("%-30s %12.0f %12.0f %8.2f %10.2f%s\n", after[i].step, is, was,
                is / std::max(was, 1.0), after[i].milliseconds,
                linear ? "" : "  FASTER THAN LINEAR");
  }
  return good ? 0 : 1;
}
