#include "actors/node_agent/node_agent.hpp"
#include "actors/protocol/launch_record.hpp"
#include "actors/replica/replica_process.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "tests/actors/replica_process/fake_engine.hpp"

#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include <iostream>

#include <unistd.h>

// The program behind the tests that need processes:
//   test_replica replica [VERSION] a replica with a fake engine, which speaks
//                                  this protocol version
//   test_replica agent DIRECTORY   a node agent that keeps two replicas and
//                                  prints the process id of each that is ready
//   test_replica worker DIRECTORY PORT   a node agent whose head is there

using namespace troupe;
using namespace std::chrono_literals;

namespace {

result<replica::engine_with_card>
load_fake(const engine::options& options,
          const engine::load_progress& progress) {
  progress(1, 2);
  if (options.model == "/missing")
    return error{errc::not_found, "/missing: no such file"};
  if (options.model == "/unfit")
    return error{errc::unsupported, "/unfit: no model that is known"};
  if (options.model == "/slow")
    std::this_thread::sleep_for(1h);
  progress(2, 2);
  return replica::engine_with_card{
      std::make_unique<test::fake_engine>(std::chrono::milliseconds{5}),
      "card"};
}

/// Has every node run two replicas.
protocol::controller_actor::behavior_type
printing_controller(protocol::controller_actor::pointer self) {
  using namespace protocol;
  return {
      [self](register_atom, const codec::bytes&,
             const node_agent_actor& agent) {
        node_welcome welcome;
        welcome.accepted = true;
        welcome.head_epoch = 1;
        welcome.node_epoch = 1;
        node_assignment all;
        all.head_epoch = 1;
        all.node_epoch = 1;
        all.sequence = 1;
        for (std::string id : {"m#1", "m#2"}) {
          replica_spec spec;
          spec.replica = id;
          all.replicas.push_back(spec);
        }
        auto answer = self->make_response_promise<codec::bytes>();
        answer.deliver(encode(welcome));
        self->send(agent, assign_atom::value, encode(all)); // in this order
        return answer;
      },
      [](report_atom, const codec::bytes& bytes) {
        auto report = decode_replica_news(bytes).value().report;
        if (report.phase == replica_phase::ready && report.load.steps == 0)
          std::cout << report.pid << std::endl;
      },
      [](death_atom, const codec::bytes&) {},
      [](deploy_atom, const codec::bytes&) { return std::uint64_t{0}; },
      [](delete_atom, const std::string&) { return std::uint64_t{0}; },
      [](config_atom) { return codec::bytes{}; },
      [](status_atom) { return codec::bytes{}; },
  };
}

/// A node agent with its head in this process, or at a port of loopback.
int run_agent(const std::filesystem::path& directory, std::uint16_t port) {
  spdlog::set_level(spdlog::level::off);
  auto ca = runtime::authority::open(directory / "tls").value();
  auto files = ca.issue("w1", directory / "w1").value();
  runtime::system_config config{{files}};
  caf::actor_system system{config};
  node_agent::head_place head = protocol::endpoint{"127.0.0.1", port, 0, 0};
  if (port == 0)
    head = system.spawn(printing_controller);
  node_agent::node_agent_options options;
  options.self.node = "w1";
  options.tls = files;
  options.run_directory = directory / "run";
  options.replica_logging.level = "critical";
  auto agent =
      node_agent::spawn_node_agent(system, std::move(options), std::move(head));
  if (!agent)
    return 1;
  while (true)
    ::pause(); // until it is killed
}

} // namespace

int main(int argc, char** argv) {
  std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "replica") {
    replica::replica_overrides overrides;
    if (argc > 2)
      overrides.version = static_cast<std::uint32_t>(std::stoul(argv[2]));
    return replica::run_replica(protocol::lifeline_fd, load_fake, overrides);
  }
  if (verb == "agent" && argc > 2)
    return run_agent(argv[2], 0);
  if (verb == "worker" && argc > 3)
    return run_agent(argv[2], static_cast<std::uint16_t>(std::stoul(argv[3])));
  return 64;
}
