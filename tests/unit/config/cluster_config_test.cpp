#include "config/cluster_config.hpp"
#include "tests/unit/config/config_folder.hpp"

using namespace troupe;
using namespace troupe::config_test;

namespace {

std::string
said(const config::loaded_cluster& loaded,
     config::diagnostic::kind kind = config::diagnostic::kind::error) {
  std::string out;
  for (const auto& finding : loaded.findings.all())
    if (finding.what == kind)
      out += to_string(finding) + "\n";
  return out;
}

} // namespace

TEST_CASE("a cluster file as Ray has it") {
  folder here;
  auto file = here.write("cluster.yaml", R"(
cluster_name: llm
max_workers: 8
upscaling_speed: 2.5
idle_timeout_minutes: 0.5
provider: {type: subprocess}
head_node_type: head.default
available_node_types:
  head.default:
    resources: {CPU: 4}
    node_config: {}
  small_worker:
    resources: {CPU: 2, memory: 1e9, fpga: 1}
    min_workers: 1
    max_workers: 3
    node_config: {executable: bin/worker}
  big:
    resources: {CPU: 16}
)");
  CHECK(config::is_cluster_file(file));
  auto loaded = config::load_cluster(file);
  CHECK(said(loaded).empty());
  const auto& all = loaded.values;
  CHECK(all.cluster_name == "llm");
  CHECK(all.max_workers == 8);
  CHECK(all.upscaling_speed == 2.5);
  CHECK(all.idle_timeout_minutes == 0.5);
  CHECK(all.head_node_type == "head.default");
  REQUIRE(all.node_types.size() == 3);
  CHECK(all.node_types[0].max_workers == 0); // the head's type brings none
  CHECK(all.node_types[1].name == "small_worker");
  CHECK(
      all.node_types[1].resources ==
      std::map<std::string, double>{{"CPU", 2}, {"fpga", 1}, {"memory", 1e9}});
  CHECK(all.node_types[1].min_workers == 1);
  CHECK(all.node_types[1].max_workers == 3);
  CHECK(all.node_types[1].executable == here.path / "bin/worker");
  CHECK(all.node_types[2].max_workers == 8);
  CHECK(all.node_types[2].executable.empty());
}

TEST_CASE("Ray's defaults") {
  folder here;
  auto loaded = config::load_cluster(here.write(
      "c.yaml", "provider: {type: subprocess}\navailable_node_types: {a: {}}"));
  CHECK(said(loaded).empty());
  CHECK(loaded.values.max_workers == 2);
  CHECK(loaded.values.upscaling_speed == 1);
  CHECK(loaded.values.idle_timeout_minutes == 5);
  CHECK(loaded.values.node_types.at(0).min_workers == 0);
  CHECK(loaded.values.node_types.at(0).max_workers == 2);
}

TEST_CASE("what is wrong with a cluster file is said, with its line") {
  folder here;
  auto file = here.write("c.yaml", R"(max_workers: many
upscaling_sped: 1
provider: {type: aws, region: eu}
head_node_type: none
docker: {image: x}
available_node_types:
  a b: {resources: {CPU: -1}}
  b: {min_workers: 3, max_workers: 1, docker: {}}
)");
  auto all = said(config::load_cluster(file));
  for (const auto* part :
       {"c.yaml:1:14: max_workers: must be a whole number",
        "c.yaml:2:1: upscaling_sped: unknown key; did you mean "
        "\"upscaling_speed\"?",
        "provider.type: \"aws\" is not supported yet; supported: subprocess",
        "provider.region: not supported yet",
        "head_node_type: \"none\" is none of available_node_types",
        "docker: not supported yet", "a node type's name must be",
        "resources.CPU: must be a number",
        "b.min_workers: 3: more than max_workers, 1",
        "b.docker: not supported yet"})
    holds(all, part);
  holds(said(config::load_cluster(here.write("d.yaml", "max_workers: 1"))),
        "provider: is required");
  holds(said(config::load_cluster(here.write("e.yaml", "- 1"))),
        "must be a map");
  holds(said(config::load_cluster(here.path / "none.yaml")), "no such file");
}

TEST_CASE("more minimum than maximum is noted") {
  folder here;
  auto loaded = config::load_cluster(
      here.write("c.yaml", "provider: {type: subprocess}\n"
                           "available_node_types: {a: {min_workers: 2}, "
                           "b: {min_workers: 1}}"));
  CHECK(said(loaded).empty());
  holds(said(loaded, config::diagnostic::kind::note),
        "the min_workers of all types are 3, max_workers is 2");
}

TEST_CASE("files of applications are no cluster files") {
  folder here;
  CHECK_FALSE(config::is_cluster_file(here.write("a", with_model(""))));
  CHECK_FALSE(config::is_cluster_file(here.write("b", "[")));
  CHECK_FALSE(config::is_cluster_file(here.path / "none"));
}
