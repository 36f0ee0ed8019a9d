#include "tests/sim/run.hpp"

#include "tests/sim/cluster.hpp"
#include "tests/sim/deployer.hpp"
#include "tests/sim/faults.hpp"
#include "tests/sim/invariants.hpp"
#include "tests/sim/traffic.hpp"

#include <exception>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

/// Longer than a request may wait, and than a replica may take to be started
/// again.
constexpr nanoseconds settle_max = 60s;
constexpr nanoseconds look_every = 250ms;
/// Until windows, delays and lost reports of the last load are past.
constexpr nanoseconds calm = 3s;
/// For so long all must stay as it is.
constexpr nanoseconds rest = 2s;

struct life {
  explicit life(world& w)
      : w(w), nodes(w), changes(nodes), requests(nodes, changes),
        trouble(nodes, requests) {
    // nop
  }

  /// Something that happens again and again until `end`.
  void repeat(nanoseconds low, nanoseconds high, instant end,
              std::function<void()> what) {
    w.after(w.between(low, high), [this, low, high, end, what] {
      if (w.now() >= end)
        return;
      what();
      repeat(low, high, end, what);
    });
  }

  void begin() {
    for (std::size_t i = 0; i < nodes.size(); ++i)
      w.after(i == 0 ? 0ns : w.between(0ns, 500ms),
              [this, i] { nodes.start(i); });
    w.after(w.between(1ms, 300ms), [this] { changes.change(); });
  }

  void suffer(instant end) {
    auto pause = w.between(30ms, 400ms);
    repeat(pause / 4, 2 * pause, end, [this] { requests.submit(); });
    auto calm = w.between(500ms, 6s);
    repeat(calm / 4, 2 * calm, end, [this] { changes.change(); });
    auto peace = w.between(150ms, 3s);
    repeat(peace / 4, 2 * peace, end, [this] { trouble.strike(); });
    repeat(200ms, 200ms, end, [this] { changes.check(); });
    while (w.step(end)) {
      // until then
    }
  }

  void pass(nanoseconds time) {
    auto end = w.now() + time;
    while (w.step(end)) {
      // until then
    }
  }

  void settle() {
    auto deadline = w.now() + settle_max;
    while (true) {
      pass(look_every);
      auto open = find_unsettled(nodes, changes, requests);
      if (!open)
        return;
      if (w.now() >= deadline)
        w.fail(open->invariant, open->what + ", long after healing");
    }
  }

  void stay() {
    auto end = w.now() + rest;
    while (w.now() < end) {
      pass(look_every);
      if (auto open = find_unsettled(nodes, changes, requests))
        w.fail(open->invariant, "does not stay settled: " + open->what);
    }
  }

  world& w;
  cluster nodes;
  deployer changes;
  traffic requests;
  faults trouble;
};

} // namespace

run_report run_seed(std::uint64_t seed, bool print, bool wall_clocks_jump,
                    bool older_replicas) {
  run_report out;
  world w{seed, print};
  life all{w};
  if (older_replicas)
    all.nodes.replica_version = protocol::protocol_version - 1;
  try {
    all.begin();
    auto end = w.between(4s, 16s);
    if (wall_clocks_jump)
      all.trouble.jump_wall_clocks(seed, end + settle_max);
    all.suffer(end);
    all.trouble.heal();
    out.healed = w.now();
    all.settle();
    all.requests.ask_at_rest();
    all.settle();
    all.pass(calm);
    all.settle();
    all.stay();
    all.nodes.ledger().check_poison();
    out.requests = all.requests.close();
    out.deployments = all.changes.acknowledged();
  } catch (const violation& x) {
    out.found = x;
  } catch (const std::exception& x) { // shipped code throws nothing
    out.found = {"I0", x.what()};
  }
  out.ended = w.now();
  out.events = w.events();
  out.trace_hash = w.trace_hash();
  out.messages = all.nodes.network().counts();
  return out;
}

} // namespace troupe::sim
