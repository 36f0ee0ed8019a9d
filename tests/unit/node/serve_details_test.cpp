#include "node/serve_details.hpp"

#include <catch2/catch.hpp>
#include <simdjson.h>

#include <string>

using namespace troupe;

namespace {

protocol::model_status model(const std::string& application,
                             const std::string& name,
                             const std::string& status) {
  protocol::model_status out;
  out.application = application;
  out.route_prefix = "/" + application;
  out.model = name;
  out.status = status;
  out.created = 77;
  return out;
}

struct parsed {
  simdjson::dom::parser parser;
  simdjson::dom::element all;

  explicit parsed(const std::string& json) {
    REQUIRE(parser.parse(json).get(all) == simdjson::SUCCESS);
  }

  std::string at(const std::string& pointer) {
    return simdjson::minify(all.at_pointer(pointer).value());
  }
};

} // namespace

TEST_CASE("an application is as well as its models") {
  protocol::cluster_status status;
  CHECK(node::application_status(status, "a") == "DEPLOYING");
  status.models = {model("a", "m", "RUNNING"), model("b", "n", "UNHEALTHY")};
  CHECK(node::application_status(status, "a") == "RUNNING");
  CHECK(node::application_status(status, "b") == "UNHEALTHY");
  status.models.push_back(model("a", "o", "PENDING"));
  CHECK(node::application_status(status, "a") == "DEPLOYING");
  status.models.push_back(model("b", "o", "DEPLOY_FAILED"));
  CHECK(node::application_status(status, "b") == "DEPLOY_FAILED");
}

TEST_CASE("the details name nodes, applications, models and replicas") {
  controller::deployment wanted;
  wanted.proxies = controller::proxy_location::head_only;
  wanted.applications = {
      {"a", R"({"name":"a","x":{"env_vars":{"A_TOKEN":"s"}}})"},
      {"empty", R"({"name":"empty"})"}};
  protocol::cluster_status status;
  protocol::node_status east;
  east.node.node = "east";
  east.node.address = "10.0.0.2";
  east.node.http_port = 8001;
  east.alive = true;
  auto west = east;
  west.node.node = "west";
  west.node.http_port = 0;
  status.nodes = {east, west};
  auto m = model("a", "org/m-1.5", "DEPLOYING");
  m.reason = "loading";
  m.replicas_wanted = 2;
  protocol::replica_report replica;
  replica.replica = "m#1";
  replica.node = "east";
  replica.pid = 5;
  replica.phase = protocol::replica_phase::ready;
  m.replicas = {replica};
  status.models = {m};
  node::node_facts head;
  head.node = "head";
  head.pid = 7;
  head.http_host = "127.0.0.1";
  head.http_port = 8000;

  parsed all{node::serve_details(wanted, status, head)};
  CHECK(all.at("/proxy_location") == R"("HeadOnly")");
  CHECK(all.at("/controller_info/pid") == "7");
  CHECK(all.at("/http_options/port") == "8000");
  CHECK(all.at("/proxies") ==
        R"({"east":{"node_id":"east","node_ip":"10.0.0.2","http_port":8001,)"
        R"("status":"HEALTHY"}})");
  CHECK(all.at("/applications/a/status") == R"("DEPLOYING")");
  CHECK(all.at("/applications/a/message") == R"("org/m-1.5: loading")");
  CHECK(all.at("/applications/a/route_prefix") == R"("/a")");
  CHECK(all.at("/applications/a/last_deployed_time_s") == "77");
  CHECK(all.at("/applications/a/deployed_app_config") ==
        R"({"name":"a","x":{"env_vars":{"A_TOKEN":"***"}}})");
  auto deployment =
      std::string{"/applications/a/deployments/"} + "LLMServer:org--m-1_5";
  CHECK(all.at(deployment + "/status") == R"("UPDATING")");
  CHECK(all.at(deployment + "/target_num_replicas") == "2");
  CHECK(all.at(deployment + "/replicas") ==
        R"([{"replica_id":"m#1","state":"RUNNING","pid":5,"node_id":"east",)"
        R"("node_ip":"10.0.0.2"}])");
  CHECK(all.at("/applications/empty/status") == R"("DEPLOYING")");
}
