#include "node/serve_details.hpp"

#include "node/serve_document.hpp"
#include "router/api/json_writer.hpp"

#include <simdjson.h>

#include <algorithm>

namespace troupe::node {

namespace {

using protocol::replica_phase;

std::string_view to_string(controller::proxy_location where) {
  switch (where) {
  case controller::proxy_location::every_node:
    return "EveryNode";
  case controller::proxy_location::head_only:
    return "HeadOnly";
  case controller::proxy_location::disabled:
    return "Disabled";
  }
  return "EveryNode";
}

/// Ray's name of a model's deployment.
std::string deployment_name(std::string_view model) {
  std::string out = "LLMServer:";
  for (char c : model)
    if (c == '/')
      out += "--";
    else
      out += c == '.' ? '_' : c;
  return out;
}

/// Ray's words for the states of deployments and replicas.
std::string_view deployment_status(const protocol::model_status& model) {
  if (model.status == "RUNNING")
    return "HEALTHY";
  if (model.status == "UNHEALTHY" || model.status == "DEPLOY_FAILED")
    return model.status;
  return "UPDATING";
}

std::string_view replica_state(replica_phase phase) {
  switch (phase) {
  case replica_phase::starting:
  case replica_phase::loading:
    return "STARTING";
  case replica_phase::ready:
    return "RUNNING";
  case replica_phase::draining:
  case replica_phase::stopped:
  case replica_phase::failed:
    return "STOPPING";
  }
  return "STOPPING";
}

const protocol::node_joined* find_node(const protocol::cluster_status& status,
                                       const std::string& name) {
  for (const auto& one : status.nodes)
    if (one.node.node == name)
      return &one.node;
  return nullptr;
}

/// Writes the whole answer, part by part.
class details_writer {
public:
  details_writer(const controller::deployment& wanted,
                 const protocol::cluster_status& status, const node_facts& head)
      : wanted_(wanted), status_(status), head_(head) {
    // nop
  }

  std::string run() {
    json_.begin_object();
    json_.key("controller_info").begin_object();
    json_.key("node_id").text(head_.node);
    json_.key("node_ip").text(head_.address);
    json_.key("pid").integer(head_.pid);
    json_.end_object();
    json_.key("proxy_location").text(to_string(wanted_.proxies));
    json_.key("http_options").begin_object();
    json_.key("host").text(head_.http_host);
    json_.key("port").natural(head_.http_port);
    json_.end_object();
    json_.key("proxies").begin_object();
    for (const auto& node : status_.nodes)
      if (node.node.http_port != 0)
        proxy(node);
    json_.end_object();
    json_.key("applications").begin_object();
    for (const auto& one : wanted_.applications)
      application(one);
    json_.end_object();
    json_.key("target_capacity");
    if (wanted_.target_capacity)
      json_.real(static_cast<float>(*wanted_.target_capacity));
    else
      json_.null();
    json_.end_object();
    return json_.take();
  }

private:
  void proxy(const protocol::node_status& node) {
    json_.key(node.node.node).begin_object();
    json_.key("node_id").text(node.node.node);
    json_.key("node_ip").text(node.node.address);
    json_.key("http_port").natural(node.node.http_port);
    json_.key("status").text(node.alive ? "HEALTHY" : "UNHEALTHY");
    json_.end_object();
  }

  void application(const controller::stored_application& one) {
    std::string message;
    std::string route_prefix;
    std::uint64_t deployed = 0;
    for (const auto& model : status_.models)
      if (model.application == one.name) {
        if (message.empty() && !model.reason.empty())
          message = model.model + ": " + model.reason;
        route_prefix = model.route_prefix;
        deployed = std::max(deployed, model.created);
      }
    json_.key(one.name).begin_object();
    json_.key("name").text(one.name);
    json_.key("route_prefix").text_or_null(route_prefix);
    json_.key("docs_path").null();
    json_.key("status").text(application_status(status_, one.name));
    json_.key("message").text(message);
    json_.key("last_deployed_time_s").natural(deployed);
    json_.key("source").text("declarative");
    json_.key("deployed_app_config").json(without_secrets(one.json));
    json_.key("deployments").begin_object();
    for (const auto& model : status_.models)
      if (model.application == one.name)
        deployment(model);
    json_.end_object();
    json_.end_object();
  }

  void deployment(const protocol::model_status& model) {
    auto name = deployment_name(model.model);
    json_.key(name).begin_object();
    json_.key("name").text(name);
    json_.key("model").text(model.model);
    json_.key("status").text(deployment_status(model));
    json_.key("message").text(model.reason);
    json_.key("target_num_replicas").natural(model.replicas_wanted);
    json_.key("replicas").begin_array();
    for (const auto& one : model.replicas)
      replica(one);
    json_.end_array();
    json_.end_object();
  }

  void replica(const protocol::replica_report& one) {
    json_.begin_object();
    json_.key("replica_id").text(one.replica);
    json_.key("state").text(replica_state(one.phase));
    json_.key("pid").integer(one.pid);
    json_.key("node_id").text(one.node);
    const auto* node = find_node(status_, one.node);
    json_.key("node_ip").text_or_null(node ? node->address : "");
    json_.end_object();
  }

  const controller::deployment& wanted_;
  const protocol::cluster_status& status_;
  const node_facts& head_;
  api::json_writer json_;
};

} // namespace

std::string serve_details(const controller::deployment& wanted,
                          const protocol::cluster_status& status,
                          const node_facts& head) {
  return details_writer{wanted, status, head}.run();
}

std::string application_status(const protocol::cluster_status& status,
                               const std::string& application) {
  auto any = false;
  auto all_run = true;
  auto unhealthy = false;
  for (const auto& model : status.models) {
    if (model.application != application)
      continue;
    any = true;
    if (model.status == "DEPLOY_FAILED")
      return model.status;
    unhealthy |= model.status == "UNHEALTHY";
    all_run &= model.status == "RUNNING";
  }
  if (unhealthy)
    return "UNHEALTHY";
  return any && all_run ? "RUNNING" : "DEPLOYING";
}

} // namespace troupe::node
