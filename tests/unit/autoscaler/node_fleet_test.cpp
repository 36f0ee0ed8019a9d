#include "autoscaler/node_fleet.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>
#include <set>

using namespace troupe;
using namespace troupe::autoscaler;
using namespace std::chrono_literals;

namespace {

using names = std::vector<std::string>;

/// A fleet machine among a store, a provider and a controller that do as told,
/// when a test says so.
struct stage {
  fleet::time_point now{std::chrono::hours{1}};
  fleet::options options;
  std::uint64_t epoch = 1;
  std::optional<fleet::machine> machine;
  std::vector<protocol::asked_node> disk;
  std::optional<std::vector<protocol::asked_node>> writing;
  std::map<std::string, std::string> processes; ///< node, type
  std::set<std::string> ending, closing, opened;
  protocol::nodes_view view;
  std::size_t asked = 0;

  stage() {
    options.types = {
        {"small", {{"CPU", 2}}, {"cpu"}, 0, 4},
        {"big", {{"CPU", 8}}, {"cpu"}, 0, 4},
    };
    options.max_workers = 10;
    options.idle_timeout = 60s;
  }

  void begin() {
    machine.emplace(options, epoch);
    std::vector<node::living_node> living;
    for (const auto& [node, type] : processes)
      living.push_back({node, ending.contains(node)});
    run(machine->begin(disk, living, now));
  }

  void run(const fleet::commands& orders) {
    for (const auto& order : orders)
      if (const auto* list = std::get_if<fleet::store_nodes>(&order)) {
        REQUIRE_FALSE(writing);
        writing = list->nodes;
      } else if (const auto* wish = std::get_if<fleet::ask_for>(&order)) {
        // Stored first, and never twice.
        auto stored = std::any_of(disk.begin(), disk.end(), [&](auto& one) {
          return one.node == wish->node && one.type == wish->type;
        });
        REQUIRE(stored);
        REQUIRE(processes.emplace(wish->node, wish->type).second);
        ++asked;
      } else if (const auto* close = std::get_if<fleet::close_node>(&order)) {
        (close->closed ? closing : opened).insert(close->node);
      } else if (const auto* end = std::get_if<fleet::end_node>(&order)) {
        ending.insert(end->node);
      }
  }

  void write(bool done = true) {
    REQUIRE(writing);
    auto list = *std::exchange(writing, std::nullopt);
    if (done)
      disk = list;
    run(machine->stored(done, now));
  }

  void write_all() {
    while (writing)
      write();
  }

  void show() {
    run(machine->know(view, now));
  }

  void pass(milliseconds time) {
    now += time;
    run(machine->tick(now));
  }

  void want(std::uint32_t replicas, double cpus) {
    view.demands.clear();
    if (replicas > 0) {
      protocol::node_demand demand;
      demand.model = "m";
      demand.replicas = replicas;
      demand.strategy = "PACK";
      demand.engine = "cpu";
      demand.bundles = {{{{"CPU", cpus}}}};
      view.demands.push_back(demand);
    }
    show();
  }

  void join(const std::string& node, double cpus, bool busy = false) {
    std::erase_if(view.nodes, [&](const auto& x) { return x.node == node; });
    protocol::seen_node seen;
    seen.node = node;
    seen.alive = true;
    seen.busy = busy;
    seen.total = {{"CPU", cpus}};
    seen.free = {{"CPU", busy ? 0 : cpus}};
    seen.engines = {"cpu"};
    view.nodes.push_back(seen);
    show();
  }

  protocol::seen_node& seen(const std::string& node) {
    for (auto& one : view.nodes)
      if (one.node == node)
        return one;
    FAIL("not seen: " << node);
    throw 0;
  }

  void gone(const std::string& node, const std::string& why) {
    processes.erase(node);
    ending.erase(node);
    std::erase_if(view.nodes, [&](const auto& x) { return x.node == node; });
    run(machine->ended(node, why, now));
  }

  std::string state(const std::string& node) const {
    for (const auto& one : machine->status(now).nodes)
      if (one.node == node)
        return one.state;
    return {};
  }

  protocol::node_type_status type(std::size_t which = 0) const {
    return machine->status(now).types.at(which);
  }
};

} // namespace

TEST_CASE("a node's way: asked for, joined, idle, closed, ended") {
  stage s;
  s.begin();
  CHECK_FALSE(s.writing);
  s.want(1, 2);
  REQUIRE(s.writing);
  CHECK(s.processes.empty()); // not before it is stored
  s.write();
  REQUIRE(s.processes.contains("small-1-1"));
  CHECK(s.state("small-1-1") == "requested");
  s.show();
  s.pass(1s);
  CHECK(s.asked == 1);
  s.want(0, 0);
  s.join("small-1-1", 2, true);
  CHECK(s.state("small-1-1") == "joined");
  s.pass(10min);
  CHECK(s.closing.empty()); // a replica is there
  s.join("small-1-1", 2);
  CHECK(s.state("small-1-1") == "idle");
  s.pass(59s);
  CHECK(s.closing.empty());
  CHECK(s.machine->next_deadline(s.now) == s.now + 1s);
  s.pass(1s);
  CHECK(s.closing == std::set<std::string>{"small-1-1"});
  CHECK(s.state("small-1-1") == "draining");
  CHECK(s.ending.empty());
  s.run(s.machine->closed("small-1-1", true, s.now));
  CHECK(s.ending == std::set<std::string>{"small-1-1"});
  CHECK(s.disk.size() == 1);
  s.gone("small-1-1", "");
  s.write_all();
  CHECK(s.disk.empty());
  CHECK(s.type().failures == 0);
  CHECK(s.asked == 1);
}

TEST_CASE("a store that fails asks nobody, and is asked again") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.write(false);
  CHECK(s.processes.empty());
  s.pass(500ms);
  CHECK_FALSE(s.writing);
  s.pass(500ms);
  REQUIRE(s.writing);
  s.write();
  CHECK(s.processes.size() == 1);
}

TEST_CASE("a node that does not come makes its type rest, and another is "
          "taken") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.write_all();
  s.pass(59s);
  CHECK(s.ending.empty());
  s.pass(1s);
  CHECK(s.ending == std::set<std::string>{"small-1-1"});
  CHECK(s.type().failures == 1);
  CHECK(s.type().rests_ms == 30'000);
  CHECK(s.type().reason.find("did not join within 60 s") != std::string::npos);
  s.write_all();
  CHECK(s.processes.contains("big-1-2"));
  // It comes after all: too late, it is on its way out.
  s.join("small-1-1", 2);
  CHECK(s.state("small-1-1") == "ending");
}

TEST_CASE("rests double up to ten minutes, and end when a node has stood") {
  stage s;
  s.options.types.pop_back();
  s.begin();
  s.want(1, 2);
  std::vector<std::uint64_t> rests;
  for (int i = 1; i <= 7; ++i) {
    s.write_all();
    REQUIRE(s.processes.size() == 1);
    s.gone(s.processes.begin()->first, "ended with status 1: no such file");
    rests.push_back(s.type().rests_ms / 1000);
    s.write_all();
    CHECK(s.processes.empty());
    s.pass(milliseconds{s.type().rests_ms} - 1ms);
    s.write_all();
    CHECK(s.processes.empty());
    s.pass(1ms);
  }
  CHECK(rests == std::vector<std::uint64_t>{30, 60, 120, 240, 480, 600, 600});
  CHECK(s.type().reason.find("no such file") != std::string::npos);
  s.write_all();
  auto node = s.processes.begin()->first;
  s.want(0, 0);
  s.join(node, 2, true);
  CHECK(s.type().failures == 7);
  s.pass(60s);
  CHECK(s.type().failures == 0);
  s.gone(node, "killed by signal 9");
  CHECK(s.type().failures == 0);
}

TEST_CASE("several that fail at once are one failure") {
  stage s;
  s.options.types.pop_back();
  s.begin();
  s.want(3, 2);
  s.write_all();
  REQUIRE(s.processes.size() == 3);
  for (const auto& node : names{"small-1-1", "small-1-2", "small-1-3"})
    s.gone(node, "ended with status 1");
  CHECK(s.type().failures == 1);
}

TEST_CASE("a type that comes with less than it promised rests") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.write_all();
  s.join("small-1-1", 1);
  CHECK(s.type().reason ==
        "small-1-1 came with 1 of the 2 CPU that its type promises");
  s.write_all();
  CHECK(s.processes.contains("big-1-2"));
  CHECK(s.state("small-1-1") == "idle"); // and ends as such
}

TEST_CASE("a demand that comes while an idle node drains keeps it") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.write_all();
  s.want(0, 0);
  s.join("small-1-1", 2);
  s.pass(60s);
  REQUIRE(s.state("small-1-1") == "draining");
  s.seen("small-1-1").closed = true;
  s.want(1, 2);
  CHECK(s.asked == 1);
  s.run(s.machine->closed("small-1-1", true, s.now));
  CHECK(s.opened == std::set<std::string>{"small-1-1"});
  CHECK(s.ending.empty());
  CHECK(s.state("small-1-1") != "draining");
}

TEST_CASE("a node on which something was placed meanwhile is kept") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.write_all();
  s.want(0, 0);
  s.join("small-1-1", 2);
  s.pass(60s);
  s.run(s.machine->closed("small-1-1", false, s.now));
  CHECK(s.state("small-1-1") == "joined");
  CHECK(s.ending.empty());
  s.join("small-1-1", 2, true);
  s.pass(10min);
  CHECK(s.ending.empty());
}

TEST_CASE("a lost node counts until it is given up") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.write_all();
  s.want(0, 0);
  s.join("small-1-1", 2, true);
  s.seen("small-1-1").alive = false;
  s.want(1, 2);
  CHECK(s.state("small-1-1") == "lost");
  CHECK_FALSE(s.writing);
  SECTION("it comes back") {
    s.pass(9s);
    s.want(0, 0);
    s.join("small-1-1", 2, true);
    CHECK(s.state("small-1-1") == "joined");
    s.pass(10s);
    CHECK(s.ending.empty());
  }
  SECTION("it does not") {
    s.pass(10s);
    CHECK(s.ending == std::set<std::string>{"small-1-1"});
    s.write_all();
    CHECK(s.asked == 2);
  }
  SECTION("the provider knows that it is gone") {
    s.gone("small-1-1", "killed by signal 9");
    s.write_all();
    CHECK(s.asked == 2);
    CHECK(s.processes.contains("big-1-2")); // small has failed within a minute
  }
}

TEST_CASE("a head that starts again finds what lives, once") {
  stage s;
  s.begin();
  s.want(3, 2);
  s.write_all();
  REQUIRE(s.processes.size() == 3);
  s.want(0, 0);
  s.view.nodes.clear();
  s.epoch = 2;
  s.processes.erase("small-1-2");     // it never came
  s.processes["small-0-9"] = "small"; // nobody knows of it any more
  s.begin();
  CHECK(s.ending == std::set<std::string>{"small-0-9"});
  s.write_all();
  CHECK(s.disk.size() == 3); // with the one that is still ending
  s.gone("small-0-9", "");
  s.write_all();
  CHECK(s.disk == std::vector<protocol::asked_node>{{"small-1-1", "small"},
                                                    {"small-1-3", "small"}});
  s.want(3, 2);
  s.write_all();
  CHECK(s.processes.size() == 3);
  CHECK(s.processes.contains("small-2-1"));
  for (const auto& [node, type] : s.processes)
    CHECK(s.state(node) == "requested");
}

TEST_CASE("a node that was ending when the head died is not taken back") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.write_all();
  s.want(0, 0);
  s.ending.insert("small-1-1");
  s.view.nodes.clear();
  s.epoch = 2;
  s.begin();
  s.write_all();
  CHECK(s.state("small-1-1") == "ending");
  CHECK(s.closing == std::set<std::string>{"small-1-1"});
  CHECK(s.disk.size() == 1); // until it is gone
  s.join("small-1-1", 2);    // it comes back to the new head for a moment
  CHECK(s.state("small-1-1") == "ending");
  s.gone("small-1-1", "");
  s.write_all();
  CHECK(s.disk.empty());
  CHECK(s.type().failures == 0);
}

TEST_CASE("another node that stands does not hide that a type fails") {
  stage s;
  s.options.types.pop_back();
  s.begin();
  s.want(1, 2);
  s.write_all();
  auto first = s.processes.begin()->first;
  s.join(first, 2, true);
  s.pass(10min);
  std::vector<std::uint64_t> rests;
  for (int i = 0; i < 3; ++i) {
    s.want(1, 2);
    s.write_all();
    REQUIRE(s.processes.size() == 2);
    auto other = s.processes.begin()->first == first
                     ? s.processes.rbegin()->first
                     : s.processes.begin()->first;
    s.gone(other, "ended with status 1: no such file");
    rests.push_back(s.type().rests_ms / 1000);
    CHECK(s.type().reason.find("no such file") != std::string::npos);
    s.write_all();
    s.pass(milliseconds{s.type().rests_ms});
    s.write_all();
  }
  CHECK(rests == std::vector<std::uint64_t>{30, 60, 120});
}

TEST_CASE("a head that dies between store and provider asks again") {
  stage s;
  s.begin();
  s.want(1, 2);
  s.disk = *std::exchange(s.writing, std::nullopt); // and the head is gone
  s.epoch = 2;
  s.begin();
  s.write_all();
  CHECK(s.disk.empty());
  s.want(1, 2);
  s.write_all();
  CHECK(s.disk.size() == 1);
  CHECK(s.processes.size() == 1);
}

TEST_CASE("a type that the file has no more is ended when it is idle") {
  stage s;
  s.begin();
  s.want(1, 8);
  s.write_all();
  REQUIRE(s.processes.contains("big-1-1"));
  s.epoch = 2;
  s.options.types.pop_back();
  s.view = {};
  s.begin();
  s.join("big-1-1", 8, true);
  s.pass(10min);
  CHECK(s.closing.empty());
  s.join("big-1-1", 8);
  CHECK(s.closing == std::set<std::string>{"big-1-1"});
}

TEST_CASE("under chance: no more processes than allowed, all known to the "
          "disk, none leaked, none doubled") {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    auto chance = [&](unsigned percent) { return random() % 100 < percent; };
    stage s;
    s.options.max_workers = 3;
    s.options.types[0].min_workers = 1;
    s.begin();
    for (int step = 0; step < 300; ++step) {
      if (chance(10))
        s.want(random() % 5, 1 + random() % 8);
      if (chance(30) && s.writing)
        s.write(chance(80));
      for (auto [node, type] : std::map{s.processes}) {
        if (chance(10))
          s.join(node, type == "small" ? 2 : 8, chance(50));
        if (chance(2))
          s.gone(node, s.ending.contains(node) ? "" : "killed by signal 9");
        if (chance(20) && s.ending.contains(node))
          s.gone(node, "");
        if (chance(20) && s.closing.erase(node) != 0)
          s.run(s.machine->closed(node, chance(80), s.now));
      }
      if (chance(1)) { // the head is killed; a write may be whole or absent
        if (s.writing && chance(50))
          s.disk = *s.writing;
        s.writing.reset();
        s.closing.clear();
        s.ending.clear();
        s.view.nodes.clear();
        ++s.epoch;
        s.begin();
      }
      s.pass(milliseconds{random() % 5'000});
      std::size_t counted = 0;
      for (const auto& [node, type] : s.processes)
        counted += !s.ending.contains(node);
      REQUIRE(counted <= s.options.max_workers);
      for (const auto& [node, type] : s.processes)
        REQUIRE(std::any_of(s.disk.begin(), s.disk.end(),
                            [&](const auto& x) { return x.node == node; }));
      if (auto due = s.machine->next_deadline(s.now))
        REQUIRE(*due > s.now);
    }
    // Quiet again: one small node, the minimum, is left of all.
    s.want(0, 0);
    for (int step = 0; step < 60; ++step) {
      s.write_all();
      for (auto [node, type] : std::map{s.processes}) {
        s.join(node, type == "small" ? 2 : 8);
        if (s.closing.erase(node) != 0)
          s.run(s.machine->closed(node, true, s.now));
        if (s.ending.contains(node))
          s.gone(node, "");
      }
      s.pass(30s);
    }
    s.write_all();
    REQUIRE(s.processes.size() == 1);
    REQUIRE(s.disk.size() == 1);
  }
}
