#include "tests/unit/controller/world.hpp"

#include <random>

using namespace troupe;
using namespace troupe::test;

namespace {

/// A model whose replicas take so much "GPU" each: ranks on whole ones, or a
/// part of one.
model_deployment on_gpus(const std::string& name, double gpus,
                         std::uint32_t replicas, std::uint32_t nodes_max = 1) {
  auto out = a_model(name, replicas);
  out.demand.engine = "cuda";
  out.demand.ranks = gpus > 1 ? static_cast<std::uint32_t>(gpus) : 1;
  out.demand.bundles.assign(out.demand.ranks, {{"GPU", gpus > 1 ? 1 : gpus}});
  out.demand.nodes_max = nodes_max;
  out.spec.gpus = gpus;
  out.spec.tensor_parallel_size = out.demand.ranks;
  return out;
}

void join_with_gpus(world& w, const std::string& name, std::uint32_t gpus) {
  auto& self = w.agents[name].self;
  self.gpus = gpus;
  w.join(name, 4);
  self.engines = {"cpu", "cuda"};
  w.join_again(name);
}

/// What each of a node's GPUs is asked for by what runs there, or ends still.
/// Refuses what a node could not hand out.
std::vector<double> handed_out(const world::agent& at) {
  std::vector<double> out(at.self.gpus);
  auto count = [&](const protocol::running_replica& one) {
    const auto& spec = one.spec;
    const auto here = protocol::ranks_here(spec).count;
    if (has_no_process(one.report))
      return;
    REQUIRE(spec.gpus_here.size() == (spec.gpus < 1 ? 1 : here));
    for (auto number : spec.gpus_here) {
      REQUIRE(number < out.size());
      out[number] += std::min(spec.gpus, 1.0);
    }
  };
  for (const auto& [id, one] : at.running)
    count(one);
  for (const auto& one : at.ending)
    count(one);
  return out;
}

/// Failures that agents have seen and the head has not heard of.
class late_failures {
public:
  explicit late_failures(world& w) : world_(w) {
    // nop
  }

  void fail(const std::string& node, const std::string& id, std::int64_t pid) {
    auto& at = world_.agents[node];
    auto& report = at.running.at(id).report;
    report.phase = replica_phase::failed;
    report.pid = pid;
    reports_.push_back({node, at.epoch, report});
  }

  /// Before anything that agents say later.
  void arrive() {
    for (const auto& news : std::exchange(reports_, {}))
      world_.run(world_.machine->report(news, world_.now));
  }

private:
  world& world_;
  std::vector<protocol::replica_news> reports_;
};

/// Agents have said of all that they started that they did.
void all_heard(world& w) {
  std::vector<protocol::replica_news> said;
  for (const auto& [name, at] : w.agents) {
    if (!at.connected)
      continue;
    for (const auto& [id, one] : at.running)
      said.push_back({name, at.epoch, one.report});
    for (const auto& one : at.ending)
      said.push_back({name, at.epoch, one.report});
  }
  for (const auto& news : said)
    w.run(w.machine->report(news, w.now));
}

/// Another head, which knows of these models alone and waits for all nodes.
void begin_anew(world& w, std::uint64_t epoch,
                std::vector<model_deployment> models) {
  w.machine.emplace(epoch, controller_limits{}, w.remembered, w.now);
  for (auto& [name, at] : w.agents)
    at.connected = false;
  w.run(w.machine->restore(of_models(std::move(models)), w.now));
}

} // namespace

TEST_CASE("parts of a GPU are placed where one GPU has room for them") {
  world w;
  join_with_gpus(w, "a", 2);
  w.deploy({on_gpus("m", 0.6, 3)});
  CHECK(w.running() == 2);
  CHECK(w.status().reason ==
        "no node can take it (bundle 1 (GPU 0.6): a has 0.8 of 2 GPU free, at "
        "most 0.4 of one)");
  CHECK(handed_out(w.agents["a"]) == std::vector<double>{0.6, 0.6});
  w.deploy(
      {on_gpus("m", 0.6, 2), on_gpus("small", 0.4, 2), on_gpus("whole", 1, 1)});
  w.settle();
  CHECK(w.running_on("a").size() == 4);
  CHECK(w.status(2).reason.find("a has 0 of 2 GPU free") != std::string::npos);
}

TEST_CASE("parts that are left of several GPUs are no whole one") {
  world w;
  join_with_gpus(w, "a", 2);
  w.deploy({on_gpus("m", 0.3, 4), on_gpus("whole", 1, 1)});
  CHECK(w.running() == 4); // three of one, one of the other
  CHECK(w.status(1).reason ==
        "no node can take it (bundle 1 (GPU 1): a has 0.8 of 2 GPU free, 0 of "
        "them whole)");
  // A GPU is free when the one that had a part of it has ended.
  w.deploy({on_gpus("m", 0.3, 3), on_gpus("whole", 1, 1)});
  w.all_ended();
  w.settle();
  CHECK(w.running() == 4);
  join_with_gpus(w, "b", 1);
  w.deploy({on_gpus("m", 0.3, 3), on_gpus("whole", 1, 2)});
  CHECK(w.running_on("b").size() == 1);
}

TEST_CASE("a head that begins anew knows which GPUs replicas have") {
  world w;
  join_with_gpus(w, "a", 2);
  w.deploy({on_gpus("m", 0.3, 1), on_gpus("n", 0.8, 1)});
  w.settle();
  const auto before = handed_out(w.agents["a"]);
  world again{2, {"a"}};
  again.agents = w.agents;
  again.run(again.machine->restore(
      of_models({on_gpus("m", 0.3, 1), on_gpus("n", 0.8, 1)}), again.now));
  again.join_again("a");
  CHECK(again.started == 0);
  CHECK(handed_out(again.agents["a"]) == before);
  again.deploy(
      {on_gpus("m", 0.3, 1), on_gpus("n", 0.8, 1), on_gpus("o", 0.7, 1)});
  CHECK(handed_out(again.agents["a"]) == std::vector<double>{1.0, 0.8});
}

TEST_CASE("ranks are on whole GPUs of several nodes if no node has enough") {
  world w;
  join_with_gpus(w, "a", 2);
  join_with_gpus(w, "b", 2);
  w.deploy({on_gpus("part", 0.5, 1), on_gpus("m", 3, 1)});
  CHECK(w.running() == 1);
  CHECK(w.status(1).reason.find("a has 1.5 of 2 GPU free, 1 of them whole") !=
        std::string::npos);
  w.deploy({on_gpus("part", 0.5, 1), on_gpus("m", 3, 1, 3)});
  REQUIRE(w.running() == 3);
  const auto& whole = w.agent_of("app/m#1").running.at("app/m#1").spec;
  const auto& part = w.agent_of("app/m#1/1").running.at("app/m#1/1").spec;
  // A part of the first node's GPU 0 is had.
  CHECK(w.agent_of("app/m#1").self.node == "b");
  CHECK(whole.gpus_here == protocol::gpu_numbers{0, 1});
  CHECK(part.gpus_here == protocol::gpu_numbers{1});
  CHECK(protocol::processes_of(whole) == 2);
  CHECK(protocol::processes_here(whole) == std::vector<std::uint32_t>{0});
  CHECK(protocol::processes_here(part) == std::vector<std::uint32_t>{2});
  CHECK(protocol::ranks_here(part).count == 1);
  CHECK(handed_out(w.agents["a"]) == std::vector<double>{0.5, 1});
  w.deploy({on_gpus("part", 0.5, 1), on_gpus("m", 3, 1)});
  w.all_ended();
  CHECK(w.running() == 1); // it may not span nodes any more
}

TEST_CASE("a GPU whose process does not end is given to nobody else") {
  world w;
  join_with_gpus(w, "a", 2);
  auto old = on_gpus("m", 2, 1);
  old.demand.bundles[0]["CPU"] = 4;
  w.deploy({old});
  w.settle();
  auto next = on_gpus("n", 1, 1);
  SECTION("though its time is over") {
    w.deploy({next});
    w.pass(600s);
    CHECK(w.running() == 0);
    CHECK(w.status().reason.find("a has 0 of 2 GPU free") != std::string::npos);
    // What the kernel shares out anyway is free.
    auto elsewhere = a_model("c", 1, 4);
    w.deploy({next, elsewhere});
    CHECK(w.running_on("a") == std::vector<std::string>{"app/c#1"});
  }
  SECTION("when its node comes again") {
    w.deploy({next});
    w.pass(600s);
    w.lose("a");
    w.join_again("a");
    w.pass(600s);
    CHECK(w.running() == 0);
  }
  SECTION("when the head begins anew without its model") {
    begin_anew(w, 2, {next});
    w.join_again("a");
    w.pass(600s);
    CHECK(w.running() == 0);
  }
  SECTION("when it failed and the head begins anew without its model") {
    late_failures failures{w};
    failures.fail("a", "app/m#1", 77);
    begin_anew(w, 2, {next});
    w.join_again("a");
    CHECK(w.running() == 0);
  }
  w.all_ended();
  CHECK(w.agent_of("app/n#1").running.at("app/n#1").spec.gpus == 1);
}

TEST_CASE("GPUs count as used by what has them, though a head that begins anew "
          "does not know its model, or another one of that name") {
  world w;
  join_with_gpus(w, "a", 2);
  join_with_gpus(w, "b", 2);
  w.deploy({on_gpus("m", 3, 1, 3), on_gpus("part", 0.5, 1)});
  w.settle();
  REQUIRE(w.running() == 3);
  const auto before = std::pair{used_of(w, "a", "GPU"), used_of(w, "b", "GPU")};
  CHECK(before.first + before.second == 3.5);
  SECTION("none") {
    begin_anew(w, 2, {});
  }
  SECTION("another one") {
    begin_anew(w, 2, {on_gpus("m", 2, 1), on_gpus("part", 1, 1)});
  }
  w.join_again("a");
  w.join_again("b");
  CHECK(used_of(w, "a", "GPU") >= before.first);
  CHECK(used_of(w, "b", "GPU") >= before.second);
  CHECK(used_of(w, "a", "GPU") <= 2);
  CHECK(used_of(w, "b", "GPU") <= 2);
  w.deploy(std::vector<model_deployment>{});
  w.all_ended();
  CHECK(used_of(w, "a", "GPU") == 0);
  CHECK(used_of(w, "b", "GPU") == 0);
}

TEST_CASE("a GPU whose process does not end keeps no node from closing") {
  world w;
  w.run(w.machine->watch_nodes(w.now));
  join_with_gpus(w, "a", 1);
  w.deploy({on_gpus("m", 1, 1)});
  w.settle();
  w.deploy(std::vector<model_deployment>{});
  commands orders;
  CHECK_FALSE(w.machine->close_node("a", true, orders, w.now));
  CHECK(w.machine->nodes(w.now).nodes.at(0).busy);
  w.pass(600s);
  const auto seen = w.machine->nodes(w.now).nodes.at(0);
  CHECK_FALSE(seen.busy);
  CHECK(seen.gpu_parts_left == std::vector<std::uint32_t>{0});
  CHECK(w.machine->close_node("a", true, orders, w.now));
}

TEST_CASE("a GPU of what a node never spoke of is free after a while") {
  world w;
  join_with_gpus(w, "a", 1);
  w.deploy({on_gpus("m", 1, 1)});
  w.deploy({on_gpus("n", 1, 1)});
  CHECK(w.running() == 0);
  w.pass(600s);
  CHECK(w.running_on("a") == std::vector<std::string>{"app/n#1"});
}

TEST_CASE("whatever comes and ends, what is placed can be handed out") {
  for (unsigned seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    std::mt19937 random{seed};
    auto below = [&](std::uint32_t n) { return random() % n; };
    world w;
    late_failures failures{w};
    std::uint64_t heads = 1;
    const std::vector<std::string> all{"a", "b", "c"};
    for (const auto& name : all)
      join_with_gpus(w, name, 1 + below(4));
    const double amounts_asked[] = {0.1, 0.3, 0.5, 0.6, 1, 1, 2, 3};
    auto some_models = [&] {
      std::vector<model_deployment> out;
      for (const char* model : {"m", "n", "o"})
        out.push_back(
            on_gpus(model, amounts_asked[below(8)], below(5), 1 + below(3)));
      return out;
    };
    for (int step = 0; step < 60; ++step) {
      const auto& name = all[below(3)];
      auto& at = w.agents[name];
      switch (below(9)) {
      case 0:
      case 1:
        w.deploy(some_models());
        break;
      case 2:
        if (at.connected)
          w.lose(name);
        break;
      case 3:
        failures.arrive();
        if (below(2) == 0) { // its process is another one
          at.running.clear();
          at.ending.clear();
        }
        w.join_again(name);
        break;
      case 4:
        failures.arrive();
        w.all_ended();
        break;
      case 5: // with ends that nobody has reported
        failures.arrive();
        all_heard(w);
        w.pass(milliseconds{below(60'000)});
        break;
      case 6:
        if (at.connected && !at.running.empty()) {
          const auto ids = w.running_on(name);
          const auto& id = ids[below(static_cast<std::uint32_t>(ids.size()))];
          const auto is_part = at.running.at(id).spec.part != 0;
          failures.fail(name, id, is_part || below(2) == 0 ? 0 : 77);
        }
        break;
      case 7: // with models that the last one had not, and without some it had
        if (below(4) == 0)
          begin_anew(w, ++heads, some_models());
        break;
      default:
        failures.arrive();
        w.all_ready();
      }
      for (const auto& [node, at] : w.agents)
        if (at.connected)
          for (auto used : handed_out(at))
            REQUIRE(used <= 1 + 1e-9);
    }
    // Nothing is kept for what is gone: all of it can be had again.
    failures.arrive();
    w.deploy(std::vector<model_deployment>{});
    for (const auto& name : all)
      if (!w.agents[name].connected)
        w.join_again(name);
    w.all_ended();
    std::uint32_t gpus = 0;
    for (const auto& name : all)
      gpus += w.agents[name].self.gpus;
    w.deploy({on_gpus("last", 1, gpus)});
    CHECK(w.running() == gpus);
  }
}

TEST_CASE("GPUs are chosen as if each replica were placed by itself") {
  protocol::gpu_room gpus{3};
  CHECK(gpus.choose(0).value().empty());
  CHECK(gpus.choose(0.5).value() == protocol::gpu_numbers{0});
  gpus.take({1}, 0.5);
  CHECK(gpus.choose(0.5).value() == protocol::gpu_numbers{1});
  CHECK(gpus.choose(0.6).value() == protocol::gpu_numbers{0});
  CHECK(gpus.choose(2).value() == protocol::gpu_numbers{0, 2});
  CHECK(gpus.choose(1.5).value() == protocol::gpu_numbers{0, 2});
  CHECK_FALSE(gpus.choose(3).has_value());
  CHECK_FALSE(gpus.choose(1e300).has_value());
  CHECK(gpus.room_for(0.7) == 1);
  CHECK(gpus.room_for(1) == 2);
  CHECK(gpus.has({0, 2}, 2));
  CHECK_FALSE(gpus.has({0, 1}, 2));
  CHECK_FALSE(gpus.has({3}, 0.1));
  // Ten tenths are one, whatever floats add up to.
  for (int i = 0; i < 10; ++i) {
    CHECK(gpus.has({0}, 0.1));
    gpus.take({0}, 0.1);
  }
  CHECK_FALSE(gpus.has({0}, 0.0001));
  CHECK(protocol::gpu_room{gpus.left()} == gpus);
  // More than there is: what is given back later is not there before.
  gpus.take({1}, 1);
  CHECK(gpus.left() == std::vector<std::uint32_t>{0, 0, 10'000});
  gpus.give_back({1}, 0.5);
  CHECK(gpus.left()[1] == 0);
  CHECK(protocol::gpu_room::of(1.5).count() == 2);
  CHECK(protocol::gpu_room::of(0).count() == 0);
}

TEST_CASE("a random order of arrivals and ends leaves GPUs as they were") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937 random{seed};
    const std::size_t count = 1 + random() % 8;
    protocol::gpu_room gpus{count};
    std::vector<std::pair<protocol::gpu_numbers, double>> taken;
    for (int step = 0; step < 200; ++step) {
      if (random() % 3 == 0 && !taken.empty()) {
        std::swap(taken[random() % taken.size()], taken.back());
        gpus.give_back(taken.back().first, taken.back().second);
        taken.pop_back();
        continue;
      }
      const double amount = random() % 2 == 0
                                ? static_cast<double>(1 + random() % 3)
                                : static_cast<double>(1 + random() % 99) / 100;
      const auto chosen = gpus.choose(amount);
      CHECK(chosen.has_value() == (gpus.room_for(amount) >= amount - 1e-9));
      if (!chosen)
        continue;
      REQUIRE(gpus.has(*chosen, amount));
      gpus.take(*chosen, amount);
      taken.emplace_back(*chosen, amount);
      for (std::size_t i = 0; i < count; ++i) {
        double used = 0;
        for (const auto& [which, of_each] : taken)
          for (auto number : which)
            used += number == i ? std::min(of_each, 1.0) : 0;
        REQUIRE(used <= 1 + 1e-9);
      }
    }
    for (const auto& [which, amount] : taken)
      gpus.give_back(which, amount);
    CHECK(gpus == protocol::gpu_room{count});
  }
}
