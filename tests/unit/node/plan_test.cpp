#include "node/plan.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace troupe;
using node::plan_node;

namespace {

plan_node machine(const std::string& name, double cpus,
                  std::uint64_t memory_bytes) {
  plan_node out;
  out.room.node = name;
  out.room.total = {{"CPU", cpus}};
  out.room.free = out.room.total;
  out.room.engines = {"cpu"};
  out.memory_bytes = memory_bytes;
  return out;
}

controller::model_deployment model(const std::string& name,
                                   std::uint32_t replicas, double cpus) {
  controller::model_deployment out;
  out.spec.application = "app";
  out.spec.model = name;
  out.replicas = replicas;
  out.demand.bundles = {{{"CPU", cpus}}};
  return out;
}

/// Weights of 100 bytes, and a KV cache of a quarter of the memory.
result<engine::memory_use> measured(const protocol::replica_spec&,
                                    std::uint64_t memory_bytes) {
  engine::memory_use out;
  out.weight_bytes = 100;
  out.kv_cache_bytes = memory_bytes / 4;
  out.kv_blocks = 10;
  out.block_size = 16;
  return out;
}

std::vector<node::model_plan>
plan(std::vector<controller::model_deployment> models,
     std::vector<plan_node> nodes) {
  controller::deployment wanted;
  wanted.models = std::move(models);
  return node::make_plan(wanted, std::move(nodes), measured);
}

bool warns(const node::model_plan& of, const std::string& part) {
  for (const auto& one : of.warnings)
    if (one.find(part) != std::string::npos)
      return true;
  return false;
}

} // namespace

TEST_CASE("replicas are planned where the controller would place them") {
  auto plans = plan({model("m", 3, 1), model("n", 1, 2)},
                    {machine("east", 4, 4000), machine("west", 4, 8000)});
  REQUIRE(plans.size() == 2);
  REQUIRE(plans[0].shares.size() == 2);
  CHECK(plans[0].shares[0].replicas + plans[0].shares[1].replicas == 3);
  for (const auto& share : plans[0].shares)
    CHECK(share.each.kv_cache_bytes == (share.node == "east" ? 1000 : 2000));
  CHECK(plans[0].warnings.empty());
  CHECK(plans[1].shares.size() == 1);
}

TEST_CASE("what has no room is said, with the reason") {
  auto plans = plan({model("m", 3, 2)}, {machine("east", 4, 4000)});
  REQUIRE(plans.size() == 1);
  CHECK(plans[0].shares[0].replicas == 2);
  CHECK(warns(plans[0], "no room for 1 of 3 replicas"));
  CHECK(warns(plans[0], "CPU"));
}

TEST_CASE("the plan says when a change cannot roll") {
  CHECK_FALSE(warns(plan({model("m", 2, 2)}, {machine("east", 6, 4000)})[0],
                    "rolling change"));
  CHECK(warns(plan({model("m", 2, 2)}, {machine("east", 5, 4000)})[0],
              "one replica at a time"));
  CHECK(warns(plan({model("m", 1, 2)}, {machine("east", 3, 4000)})[0],
              "requests wait"));
  // What another model takes is taken.
  CHECK(warns(
      plan({model("m", 1, 2), model("n", 1, 2)}, {machine("east", 5, 4000)})[0],
      "rolling change"));
}

TEST_CASE("a node whose memory is promised twice is named") {
  auto plans = plan({model("m", 4, 1)}, {machine("east", 8, 4000)});
  CHECK(warns(plans[0], "the replicas on east take"));
  plans = plan({model("m", 3, 1)}, {machine("east", 8, 4000)});
  CHECK_FALSE(warns(plans[0], "take"));
  auto bound = model("m", 1, 1);
  bound.spec.memory_bytes = 1000;
  CHECK(warns(plan({bound}, {machine("east", 8, 4000)})[0],
              "ray_actor_options.memory allows"));
}

TEST_CASE("a model that cannot be read has a place but no size") {
  controller::deployment wanted;
  wanted.models = {model("m", 1, 1)};
  auto plans =
      node::make_plan(wanted, {machine("east", 8, 4000)},
                      [](const auto&, auto) -> result<engine::memory_use> {
                        return error{errc::not_found, "no such file"};
                      });
  CHECK(plans[0].shares.size() == 1);
  CHECK(warns(plans[0], "its size is not known: no such file"));
  auto text = node::to_text(plans, {machine("east", 8, 4000)});
  CHECK(text.find("east: 1 replica\n") != std::string::npos);
}

TEST_CASE("a model that is refused wherever it is placed is an error") {
  controller::deployment wanted;
  wanted.models = {model("m", 1, 1), model("n", 1, 1)};
  const auto code =
      GENERATE(errc::corrupt, errc::unsupported, errc::invalid_argument);
  auto measure = [&](const auto& spec, auto) -> result<engine::memory_use> {
    if (spec.model == "m")
      return error{code, "a scale is not finite"};
    return error{errc::not_found, "no such file"};
  };
  auto plans = node::make_plan(wanted, {machine("east", 8, 4000)}, measure);
  CHECK(node::has_errors(plans));
  CHECK(plans[0].refused == "a scale is not finite");
  CHECK_FALSE(warns(plans[0], "finite"));
  CHECK(plans[1].refused.empty());
  auto text = node::to_text(plans, {machine("east", 8, 4000)});
  CHECK(text.find("  error: a scale is not finite\n") != std::string::npos);
  plans.erase(plans.begin());
  CHECK_FALSE(node::has_errors(plans));
}

TEST_CASE("a plan tells sizes in MiB and GiB, and of a KV cache if there is") {
  const std::vector nodes{machine("east", 8, 4000)};
  node::planned_share share{"east", 1, {}};
  share.each.weight_bytes = 3584ull << 20;
  share.each.workspace_bytes = 16u << 20;
  share.each.max_model_len = 256;
  auto shown = [&] {
    return node::to_text({{"app", "m", 1, {share}, {}}}, nodes);
  };
  CHECK(shown().find("  east: 1 replica, each 3.5 GiB: weights 3.5 GiB, "
                     "workspace 16.0 MiB; up to 256 tokens per text\n") !=
        std::string::npos);
  share.each.kv_cache_bytes = 512u << 20;
  share.each.kv_blocks = 10;
  share.each.block_size = 16;
  CHECK(shown().find("  east: 1 replica, each 4.0 GiB: weights 3.5 GiB, "
                     "KV cache 512.0 MiB (160 tokens), workspace 16.0 MiB; up "
                     "to 256 tokens per choice\n") != std::string::npos);
}

TEST_CASE("a model on a GPU is measured by its part of the GPU's memory") {
  auto wanted = model("a", 2, 1);
  wanted.spec.gpus = 0.5;
  auto with_gpu = machine("n1", 4, 500);
  with_gpu.gpu_memory_bytes = 8000;
  auto plans = plan({wanted}, {with_gpu});
  REQUIRE(plans.size() == 1);
  REQUIRE(plans[0].shares.size() == 1);
  CHECK(plans[0].shares[0].each.kv_cache_bytes == 1000);
  // 2200 bytes are more than the node's own memory, which they do not take.
  CHECK(plans[0].warnings.empty());
  CHECK(node::to_text(plans, {with_gpu}).find("n1: 0 of 1 MiB") !=
        std::string::npos);
}

TEST_CASE("a plan puts a part of a GPU on one GPU") {
  auto wanted = model("a", 3, 0);
  wanted.demand.engine = "cuda";
  wanted.demand.bundles = {{{"GPU", 0.6}}};
  wanted.spec.gpus = 0.6;
  auto with_gpus = machine("n1", 4, 500);
  with_gpus.room.total["GPU"] = with_gpus.room.free["GPU"] = 2;
  with_gpus.room.gpus = controller::gpus_of(with_gpus.room.total);
  with_gpus.room.engines.push_back("cuda");
  with_gpus.gpu_memory_bytes = 8000;
  auto plans = plan({wanted}, {with_gpus});
  REQUIRE(plans[0].shares.size() == 1);
  CHECK(plans[0].shares[0].replicas == 2);
  CHECK(warns(plans[0], "no room for 1 of 3 replicas: bundle 1 (GPU 0.6): n1 "
                        "has 0.8 of 2 GPU free, at most 0.4 of one"));
}

TEST_CASE("each rank of a model on GPUs is measured by a GPU's memory") {
  auto wanted = model("a", 1, 1);
  wanted.spec.gpus = 2;
  auto with_gpu = machine("n1", 4, 500);
  with_gpu.gpu_memory_bytes = 8000;
  auto plans = plan({wanted}, {with_gpu});
  REQUIRE(plans[0].shares.size() == 1);
  CHECK(plans[0].shares[0].each.kv_cache_bytes == 2000); // as `measured` says
}

TEST_CASE("ranks on several nodes are planned on each, by the least memory") {
  auto wanted = model("a", 1, 1);
  wanted.spec.tensor_parallel_size = 3;
  wanted.demand.bundles.assign(3, {{"CPU", 1}});
  wanted.demand.nodes_max = 3;
  const std::vector nodes{machine("east", 2, 4000), machine("west", 1, 1000)};
  auto plans = plan({wanted}, nodes);
  REQUIRE(plans[0].shares.size() == 1);
  // West has a third of what all ranks could take: 3000 bytes.
  CHECK(plans[0].shares[0].each.kv_cache_bytes == 750);
  CHECK(plans[0].warnings.size() == 1); // no rolling change
  auto text = node::to_text(plans, nodes);
  CHECK(text.find("  east (2 ranks), west (1): 1 replica, each ") !=
        std::string::npos);
  wanted.replicas = 2;
  plans = plan({wanted}, {machine("east", 4, 200), machine("west", 2, 1000)});
  REQUIRE(plans[0].shares.size() == 2);
  CHECK(warns(plans[0], "the replicas on east take"));

  wanted.replicas = 1;
  wanted.spec.gpus = 3;
  auto east = nodes[0], west = nodes[1];
  east.gpu_memory_bytes = 8000;
  west.gpu_memory_bytes = 4000;
  plans = plan({wanted}, {east, west});
  CHECK(plans[0].shares[0].each.kv_cache_bytes == 1000);
  west.gpu_memory_bytes = 0;
  CHECK(warns(plan({wanted}, {east, west})[0], "west does not say how much"));
}

TEST_CASE("a GPU whose memory nobody knows gives no size") {
  auto wanted = model("a", 1, 1);
  wanted.spec.gpus = 1;
  auto plans = plan({wanted}, {machine("n1", 4, 1000)});
  REQUIRE(plans.size() == 1);
  REQUIRE(plans[0].shares.size() == 1);
  CHECK(plans[0].shares[0].each.bytes() == 0);
  CHECK(warns(plans[0], "n1 does not say how much memory a GPU has"));
}

TEST_CASE("the nodes of a plan are the living ones of a status") {
  auto nodes = node::nodes_of_status(
      R"({"nodes":[{"node":"east","alive":true,"memory_bytes":5,)"
      R"("resources":{"CPU":2,"fpga":0.5},"engines":["cpu"]},)"
      R"({"node":"west","alive":false}]})");
  REQUIRE(nodes.has_value());
  REQUIRE(nodes->size() == 1);
  CHECK((*nodes)[0].room.node == "east");
  CHECK((*nodes)[0].room.free.at("fpga") == 0.5);
  CHECK((*nodes)[0].room.engines == std::vector<std::string>{"cpu"});
  for (std::string bad :
       {"", "[]", R"({"nodes":5})", R"({"nodes":[{"alive":true}]})"}) {
    INFO(bad);
    CHECK_FALSE(node::nodes_of_status(bad).has_value());
  }
}

TEST_CASE("this machine has cores and memory") {
  auto nodes = node::this_machine();
  REQUIRE(nodes.size() == 1);
  CHECK(nodes[0].memory_bytes > 0);
  CHECK(nodes[0].room.free.at("CPU") >= 1);
}
