#include "actors/node_agent/agent_machine.hpp"
#include "actors/node_agent/rank_parts.hpp"

#include <catch2/catch.hpp>

#include <csignal>

using namespace troupe;
using namespace troupe::node_agent;
using namespace std::chrono_literals;
using protocol::replica_phase;

namespace {

protocol::replica_spec part(std::uint64_t leader,
                            const std::string& id = "m#1/1") {
  protocol::replica_spec out;
  out.replica = id;
  out.ranks_on = {{"a", {0}}, {"b", {1, 2}}};
  out.part = 1;
  out.leader = leader;
  out.graceful_shutdown_timeout_ms = 1000;
  return out;
}

struct bench {
  rank_parts parts{7};
  node_agent::clock::time_point now{};
  std::vector<spawn_process> spawned;
  std::vector<std::uint64_t> killed;
  std::vector<protocol::replica_report> reports;

  void run(commands todo) {
    for (auto& x : todo)
      if (auto* start = std::get_if<spawn_process>(&x))
        spawned.push_back(*start);
      else if (auto* signal = std::get_if<signal_process>(&x)) {
        CHECK(signal->signal == SIGKILL);
        killed.push_back(signal->incarnation);
      } else {
        reports.push_back(std::get<send_report>(x).report);
      }
  }

  void assign(std::vector<protocol::replica_spec> specs) {
    run(parts.assign(std::move(specs), now));
  }

  void end() {
    run(parts.ended(spawned.back().incarnation, {1, 0, {}}, now));
  }

  void advance(milliseconds time) {
    now += time;
    run(parts.tick(now));
  }
};

} // namespace

TEST_CASE_METHOD(bench, "a part is started once for each start of its "
                        "replica") {
  assign({part(0)});
  CHECK(spawned.empty());
  assign({part(11)});
  REQUIRE(spawned.size() == 1);
  CHECK(spawned[0].spec == part(11));
  CHECK(spawned[0].incarnation != 0);
  assign({part(11)});
  CHECK(spawned.size() == 1);
  CHECK(parts.spec_of(spawned[0].incarnation)->leader == 11);
  end();
  CHECK(parts.spec_of(spawned[0].incarnation) == nullptr);
  CHECK(reports.back().phase == replica_phase::failed);
  CHECK(reports.back().reason == "exited with status 1");
  assign({part(11)});
  CHECK(spawned.size() == 1);
  assign({part(12)});
  REQUIRE(spawned.size() == 2);
  CHECK(spawned[1].incarnation != spawned[0].incarnation);
  CHECK(killed.empty());
}

TEST_CASE_METHOD(bench, "a new start of the replica ends what followed the old "
                        "one, and waits for its end") {
  assign({part(11)});
  assign({part(12)});
  CHECK(killed == std::vector{spawned[0].incarnation});
  CHECK(spawned.size() == 1);
  CHECK(parts.spec_of(spawned[0].incarnation)->leader == 11);
  end();
  REQUIRE(spawned.size() == 2);
  CHECK(spawned[1].spec.leader == 12);
}

TEST_CASE_METHOD(bench, "a part that is not wanted any more ends with its "
                        "replica, or is killed in the end") {
  assign({part(11)});
  SECTION("with it") {
    CHECK(parts.parts().at(0).report.phase == replica_phase::starting);
    assign({});
    CHECK(parts.empty() == false);
    CHECK(parts.parts().at(0).report.phase == replica_phase::draining);
    CHECK(killed.empty());
    end();
    CHECK(reports.back().phase == replica_phase::stopped);
    CHECK(parts.empty());
    advance(1h);
    CHECK(killed.empty());
  }
  SECTION("killed") {
    assign({});
    advance(2900ms);
    CHECK(killed.empty());
    advance(200ms);
    CHECK(killed.size() == 1);
    advance(1h);
    CHECK(killed.size() == 1);
    end();
    CHECK(parts.empty());
  }
  SECTION("wanted again") {
    assign({});
    assign({part(11)});
    CHECK(parts.parts().at(0).report.phase == replica_phase::starting);
    advance(1h);
    CHECK(killed.empty());
    CHECK(spawned.size() == 1);
  }
  SECTION("without a process it is gone at once") {
    end();
    assign({});
    CHECK(parts.empty());
    CHECK(reports.back().phase == replica_phase::stopped);
  }
}

TEST_CASE_METHOD(bench, "a node that drains starts no part and ends those that "
                        "it has in time") {
  assign({part(11), part(0, "m#2/1")});
  run(parts.drain(3s, now));
  assign({part(12, "m#3/1")});
  CHECK(spawned.size() == 1);
  CHECK(parts.parts().size() == 1);
  CHECK(reports.back().replica == "m#2/1");
  CHECK(reports[reports.size() - 2].replica == "m#1/1");
  advance(2600ms);
  CHECK(killed.empty());
  advance(200ms);
  CHECK(killed.size() == 1);
  end();
  CHECK(parts.empty());
}

TEST_CASE_METHOD(bench, "what GPUs of a part are used for is told when it "
                        "changes, and not of what has ended") {
  std::vector<protocol::gpu_use> use;
  std::vector<std::uint64_t> asked;
  auto see = [&] {
    run(parts.see_gpus([&](std::uint64_t incarnation) {
      asked.push_back(incarnation);
      return use;
    }));
  };
  assign({part(11), part(0, "m#2/1")});
  const auto told = reports.size();
  see();
  CHECK(reports.size() == told);
  CHECK(asked == std::vector{spawned[0].incarnation});
  use = {{"1", 5, 10, 50}};
  see();
  see();
  REQUIRE(reports.size() == told + 1);
  CHECK(reports.back().replica == "m#1/1");
  CHECK(reports.back().gpus == use);
  CHECK(parts.parts()[0].report.gpus == use);
  end();
  CHECK(reports.back().gpus.empty());
  see();
  CHECK(reports.back().gpus.empty());
}

TEST_CASE_METHOD(bench, "of two specs of one part the first counts; what is "
                        "not known is no part") {
  assign({part(11), part(12)});
  REQUIRE(spawned.size() == 1);
  CHECK(spawned[0].spec.leader == 11);
  run(parts.ended(99, {}, now));
  run(parts.ended(0, {}, now));
  CHECK(parts.parts().size() == 1);
  CHECK(parts.parts()[0].report.incarnation == spawned[0].incarnation);
}
