#include "tests/unit/controller/world.hpp"

using namespace troupe;
using namespace troupe::test;

namespace {

model_deployment scaled_model_named(const std::string& name,
                                    std::uint32_t min = 1,
                                    std::uint32_t max = 4) {
  auto out = a_model(name, min);
  out.scaling.emplace();
  out.scaling->min_replicas = min;
  out.scaling->max_replicas = max;
  return out;
}

protocol::scale_order order_of(const world& w, std::uint32_t target) {
  protocol::scale_order out;
  out.application = "app";
  out.model = "m";
  out.revision = w.machine->scaled().models.at(0).revision;
  out.target = target;
  out.reason = "up: a test";
  out.now = "a test";
  return out;
}

void scale(world& w, std::uint32_t target) {
  w.run(w.machine->scale(order_of(w, target), w.now));
}

} // namespace

TEST_CASE("an order of the autoscaler changes what is wanted, within bounds") {
  world w;
  w.join("head");
  w.deploy({scaled_model_named("m"), a_model("fixed")});
  w.settle();
  REQUIRE(w.scaled.models.size() == 1);
  CHECK(w.scaled.nodes == std::vector<std::string>{"head"});
  CHECK(w.scaled.models[0].target == 1);
  scale(w, 3);
  CHECK(w.running() == 4);
  CHECK(w.scaled.models[0].target == 3);
  CHECK(w.scaled.models[0].replicas.size() == 1); // those that serve
  w.settle();
  CHECK(w.scaled.models[0].replicas.size() == 3);
  auto status = w.status();
  CHECK(status.scaled);
  CHECK(status.replicas_max == 4);
  CHECK(status.scaling == "a test");
  CHECK(status.last_scaling == "up: a test");
  scale(w, 400);
  CHECK(w.running() == 5);
  scale(w, 0);
  w.settle();
  CHECK(w.running() == 2);
}

TEST_CASE("an order about another scaling, or no scaled model, is dropped") {
  world w;
  w.join("head");
  w.deploy({scaled_model_named("m"), a_model("fixed")});
  w.settle();
  auto late = order_of(w, 3);
  w.deploy({scaled_model_named("m", 1, 5), a_model("fixed")});
  w.run(w.machine->scale(late, w.now));
  CHECK(w.running() == 2);
  auto other = order_of(w, 3);
  other.model = "fixed";
  w.run(w.machine->scale(other, w.now));
  other.model = "unknown";
  w.run(w.machine->scale(other, w.now));
  CHECK(w.running() == 2);
}

TEST_CASE("a deployment again keeps what the load made, within its bounds") {
  world w;
  w.join("head");
  w.deploy({scaled_model_named("m")});
  scale(w, 3);
  w.settle();
  auto version = w.machine->table().version;
  w.deploy({scaled_model_named("m")});
  CHECK(w.running() == 3);
  CHECK(w.machine->table().version == version);
  w.deploy({scaled_model_named("m", 1, 2)});
  w.settle();
  CHECK(w.running() == 2);
  SECTION("its own beginning counts when it changes") {
    auto begins = scaled_model_named("m", 1, 4);
    begins.scaling->initial_replicas = 4;
    begins.replicas = 4;
    w.deploy({begins});
    CHECK(w.running() == 4);
  }
  SECTION("what is not scaled any more has its own number") {
    w.deploy({a_model("m", 1)});
    w.settle();
    CHECK(w.running() == 1);
    CHECK(w.scaled.models.empty());
  }
}

TEST_CASE("a head that starts again goes on with the targets") {
  world w;
  w.join("head");
  auto wanted = of_models({scaled_model_named("m"), scaled_model_named("n")});
  w.deploy(wanted);
  scale(w, 3);
  REQUIRE(w.targets ==
          std::vector<scale_target>{{"app", "m", 3}, {"app", "n", 1}});
  controller_machine next{2, {}, {}, w.now};
  next.restore(wanted, w.now, w.targets);
  auto scaled = next.scaled();
  REQUIRE(scaled.models.size() == 2);
  CHECK(scaled.models[0].target == 3);
  CHECK(scaled.models[1].target == 1);
}

TEST_CASE("load of replicas that serve is told, of scaled models only") {
  world w;
  w.join("head");
  w.deploy({scaled_model_named("m"), a_model("fixed")});
  w.report("app/m#1", replica_phase::loading);
  CHECK(w.loads.empty());
  w.report("app/m#1", replica_phase::ready);
  w.report("app/fixed#1", replica_phase::ready);
  REQUIRE(w.loads.size() == 1);
  CHECK(w.loads[0].replica == "app/m#1");
}

TEST_CASE("a model that cannot be woken rests, longer each time") {
  world w;
  w.join("head");
  w.deploy({scaled_model_named("m", 0)});
  CHECK(w.running() == 0);
  auto waking = [&] { return w.machine->table().models[0].without_replica; };
  CHECK(w.status().status == "RUNNING");
  CHECK(waking() == protocol::waking::wakes);
  for (auto pause : {30s, 60s, 120s}) {
    scale(w, 1);
    REQUIRE(w.running() == 1);
    w.report("app/m#1", replica_phase::failed, "no such file", true);
    CHECK(waking() == protocol::waking::failed);
    CHECK(w.status().status == "DEPLOY_FAILED");
    CHECK(w.status().reason.find("no such file") != std::string::npos);
    w.pass(pause - 1s);
    CHECK(waking() == protocol::waking::failed);
    w.pass(2s);
    w.all_ended();
    CHECK(waking() == protocol::waking::wakes);
    CHECK(w.status().status == "RUNNING");
    CHECK(w.scaled.models[0].target == 0);
  }
  // Once it was ready the count begins anew.
  scale(w, 1);
  w.settle();
  CHECK(w.status().status == "RUNNING");
  w.report("app/m#1", replica_phase::failed, "gone", true);
  CHECK(waking() == protocol::waking::failed);
  w.pass(31s);
  CHECK(waking() == protocol::waking::wakes);
}

TEST_CASE("a scaler outside sets the number where it may") {
  world w;
  w.join("head");
  auto outside = a_model("m", 2);
  outside.external_scaler = true;
  w.deploy({outside, a_model("fixed")});
  auto set = [&](const std::string& model, std::uint32_t replicas) {
    commands orders;
    auto done =
        w.machine->scale_from_outside("app", model, replicas, orders, w.now);
    w.run(orders);
    w.settle();
    return done ? std::string{} : done.error().message;
  };
  CHECK(set("m", 3).empty());
  CHECK(w.running() == 4);
  CHECK(w.targets == std::vector<scale_target>{{"app", "m", 3}});
  CHECK(w.scaled.models.empty()); // the autoscaler has nothing to say
  CHECK(set("fixed", 3).find("external_scaler_enabled") != std::string::npos);
  CHECK(set("other", 3).find("no model \"other\"") != std::string::npos);
  CHECK(set("m", 4'097).find("4096") != std::string::npos);
  CHECK(w.running() == 4);
  // The same file changes nothing; another number in it counts.
  w.deploy({outside, a_model("fixed")});
  CHECK(w.running() == 4);
  outside.replicas = 1;
  w.deploy({outside, a_model("fixed")});
  w.settle();
  CHECK(w.running() == 2);
  CHECK(set("m", 0).empty());
  CHECK(w.running() == 1);
}

TEST_CASE("the target capacity scales what is listed and all bounds") {
  world w;
  w.join("head");
  auto wanted = of_models({scaled_model_named("m", 2, 8), a_model("fixed", 4)});
  wanted.target_capacity = 50;
  w.run(w.machine->deploy(wanted, w.now));
  w.settle();
  auto replicas = [&](const std::string& name) {
    std::size_t out = 0;
    for (const auto& model : w.machine->table().models)
      if (model.model == name)
        out = model.replicas.size();
    return out;
  };
  CHECK(replicas("m") == 1);
  CHECK(replicas("fixed") == 2);
  REQUIRE(w.scaled.models.size() == 1);
  CHECK(w.scaled.models[0].target_capacity == 50.0);
  scale(w, 8);
  w.settle();
  CHECK(replicas("m") == 4);
  wanted.target_capacity = 100;
  w.run(w.machine->deploy(wanted, w.now));
  w.settle();
  CHECK(replicas("m") == 4); // the autoscaler's, within the bounds
  CHECK(replicas("fixed") == 4);
  wanted.target_capacity = 0;
  w.run(w.machine->deploy(wanted, w.now));
  w.settle();
  CHECK(w.running() == 0);
}

TEST_CASE("the direction of the target capacity is that of its last change") {
  auto at = [](std::optional<double> capacity, const std::string& app = "a") {
    deployment out;
    out.applications = {{app, "{}"}};
    out.target_capacity = capacity;
    return out;
  };
  auto rising = [](const deployment& before, deployment wanted) {
    note_direction(before, wanted);
    return wanted.capacity_rising;
  };
  CHECK(!rising(at({}), at({})));
  CHECK(!rising(at({}), at(50)));       // from all
  CHECK(rising(at({}), at(50, "new"))); // from nothing
  CHECK(rising(at(20), at(50)));
  CHECK(!rising(at(50), at(20)));
  CHECK(!rising(at(50), at({})));
  auto before = at(50);
  before.capacity_rising = true;
  CHECK(rising(before, at(50)));
}
