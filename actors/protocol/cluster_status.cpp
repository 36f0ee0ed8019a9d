#include "actors/protocol/cluster_status.hpp"

#include "actors/protocol/node_layout.hpp"

#include <array>
#include <cmath>
#include <fmt/format.h>

namespace troupe::protocol {

template <>
struct layout<model_status> {
  using r = model_status;
  static constexpr std::string_view name = "model_status";
  static constexpr auto fields = std::tuple{
      number(1, &r::application),     number(2, &r::route_prefix),
      number(3, &r::model),           number(4, &r::status),
      number(5, &r::reason),          number(6, &r::note),
      number(7, &r::replicas_wanted), number(8, &r::replicas_ready),
      number(9, &r::created),         number(10, &r::replicas),
      number(11, &r::scaled),         number(12, &r::replicas_min),
      number(13, &r::replicas_max),   number(14, &r::scaling),
      number(15, &r::last_scaling),   number(16, &r::held_back),
  };
};

template <>
struct layout<node_status> {
  using r = node_status;
  static constexpr std::string_view name = "node_status";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::alive),
      number(3, &r::used),
  };
};

template <>
struct layout<cluster_status> {
  using r = cluster_status;
  static constexpr std::string_view name = "cluster_status";
  static constexpr auto fields = std::tuple{
      number(1, &r::table_version), number(2, &r::nodes),
      number(3, &r::models),        number(4, &r::revoked),
      number(5, &r::demands),       number(6, &r::fleet),
  };
};

codec::bytes encode(const cluster_status& from) {
  return encode_record(from);
}

result<cluster_status> decode_cluster_status(codec::bytes_view from) {
  return decode_record<cluster_status>(from);
}

std::string_view to_string(replica_phase phase) {
  constexpr std::array<std::string_view, 6> names{
      "starting", "loading", "ready", "draining", "stopped", "failed"};
  return names[static_cast<std::size_t>(phase)];
}

namespace {

void quote(std::string& out, std::string_view text) {
  constexpr std::string_view hex = "0123456789abcdef";
  out += '"';
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < ' ') {
      out += "\\u00";
      out += hex[c >> 4];
      out += hex[c & 15];
    } else {
      out += static_cast<char>(c);
    }
  }
  out += '"';
}

/// Writes one JSON object, member by member.
class json_object {
public:
  explicit json_object(std::string& out) : out_(out) {
    out_ += '{';
  }

  ~json_object() {
    out_ += '}';
  }

  std::string& member(std::string_view name) {
    if (!first_)
      out_ += ',';
    first_ = false;
    quote(out_, name);
    out_ += ':';
    return out_;
  }

  void text(std::string_view name, std::string_view value) {
    quote(member(name), value);
  }

  void number(std::string_view name, std::uint64_t value) {
    member(name) += std::to_string(value);
  }

  /// Not a number and infinities, which JSON has no words for, are null.
  void amount(std::string_view name, double value) {
    member(name) +=
        std::isfinite(value) ? fmt::format("{:.10g}", value) : "null";
  }

  void flag(std::string_view name, bool value) {
    member(name) += value ? "true" : "false";
  }

  template <class List, class Write>
  void list(std::string_view name, const List& values, Write write) {
    member(name) += '[';
    auto comma = false;
    for (const auto& value : values) {
      if (comma)
        out_ += ',';
      comma = true;
      write(out_, value);
    }
    out_ += ']';
  }

private:
  std::string& out_;
  bool first_ = true;
};

void write_load(std::string& out, const replica_load& load) {
  json_object object{out};
  object.number("report", load.sequence);
  object.number("steps", load.steps);
  object.number("running", load.running);
  object.number("waiting", load.waiting);
  object.number("waiting_tokens", load.waiting_tokens);
  object.number("kv_blocks_total", load.kv_blocks_total);
  object.number("kv_blocks_free", load.kv_blocks_free);
  object.number("prompt_tokens", load.prompt_tokens);
  object.number("output_tokens", load.output_tokens);
  object.number("prefix_queries", load.prefix_queries);
  object.number("prefix_hits", load.prefix_hits);
  object.number("preemptions", load.preemptions);
  object.number("weight_bytes_read", load.weight_bytes_read);
  object.number("resumed_tokens", load.resumed_tokens);
  object.number("longest_step_ms", load.longest_step_ms);
}

void write_gpu(std::string& out, const gpu_use& gpu) {
  json_object object{out};
  if (!gpu.node.empty())
    object.text("node", gpu.node);
  object.text("gpu", gpu.gpu);
  object.number("memory_used_bytes", gpu.memory_used);
  object.number("memory_total_bytes", gpu.memory_total);
  if (gpu.busy_percent >= 0)
    object.number("busy_percent", static_cast<std::uint64_t>(gpu.busy_percent));
}

void write_replica(std::string& out, const replica_report& report) {
  json_object object{out};
  object.text("replica", report.replica);
  object.text("node", report.node);
  object.text("phase", to_string(report.phase));
  object.number("pid", static_cast<std::uint64_t>(report.pid));
  object.number("restarts", report.restarts);
  object.number("bytes_done", report.bytes_done);
  object.number("bytes_total", report.bytes_total);
  object.number("load_ms", report.load_ms);
  object.text("device", report.device);
  object.text("arithmetic_class", report.arithmetic_class);
  object.flag("budget_spent", report.budget_spent);
  object.text("reason", report.reason);
  write_load(object.member("load"), report.load);
  if (!report.gpus.empty())
    object.list("gpus", report.gpus, write_gpu);
}

void write_model(std::string& out, const model_status& model) {
  json_object object{out};
  object.text("application", model.application);
  object.text("route_prefix", model.route_prefix);
  object.text("model", model.model);
  object.text("status", model.status);
  object.text("reason", model.reason);
  object.text("note", model.note);
  object.number("replicas_wanted", model.replicas_wanted);
  object.number("replicas_ready", model.replicas_ready);
  object.number("created", model.created);
  if (model.scaled) {
    json_object scaling{object.member("scaling")};
    scaling.number("min_replicas", model.replicas_min);
    scaling.number("max_replicas", model.replicas_max);
    scaling.text("decision", model.scaling);
    scaling.text("last_change", model.last_scaling);
    scaling.text("held_back", model.held_back);
  }
  object.list("replicas", model.replicas, write_replica);
}

void write_amounts(std::string& out, const std::vector<resource>& amounts) {
  json_object object{out};
  for (const auto& [resource, amount] : amounts)
    object.amount(resource, amount);
}

void write_node(std::string& out, const node_status& status) {
  const auto& node = status.node;
  json_object object{out};
  object.text("node", node.node);
  object.flag("alive", status.alive);
  object.text("address", node.address);
  object.number("http_port", node.http_port);
  object.number("cpus", node.cpus);
  object.number("memory_bytes", node.memory_bytes);
  object.number("gpus", node.gpus);
  object.text("accelerator_type", node.accelerator_type);
  object.list("engines", node.engines, quote);
  write_amounts(object.member("resources"), node.resources);
  write_amounts(object.member("used"), status.used);
  json_object labels{object.member("labels")};
  for (const auto& [name, value] : node.labels)
    labels.text(name, value);
}

void write_demand(std::string& out, const node_demand& demand) {
  json_object object{out};
  object.text("application", demand.application);
  object.text("model", demand.model);
  object.number("replicas", demand.replicas);
  object.list("bundles", demand.bundles,
              [](std::string& to, const resource_bundle& bundle) {
                write_amounts(to, bundle.amounts);
              });
  object.text("strategy", demand.strategy);
  object.text("engine", demand.engine);
  object.number("waits_ms", demand.waits_ms);
  object.text("reason", demand.reason);
}

void write_node_type(std::string& out, const node_type_status& type) {
  json_object object{out};
  object.text("type", type.type);
  write_amounts(object.member("resources"), type.resources);
  object.number("min_workers", type.min_workers);
  object.number("max_workers", type.max_workers);
  object.number("nodes", type.nodes);
  object.number("failures", type.failures);
  object.number("rests_ms", type.rests_ms);
  object.text("reason", type.reason);
}

void write_asked_node(std::string& out, const asked_node_status& node) {
  json_object object{out};
  object.text("node", node.node);
  object.text("type", node.type);
  object.text("state", node.state);
  object.number("since_ms", node.since_ms);
}

} // namespace

std::string to_json(const cluster_status& status) {
  std::string out;
  {
    json_object object{out};
    object.number("table_version", status.table_version);
    object.list("nodes", status.nodes, write_node);
    object.list("models", status.models, write_model);
    object.list("revoked", status.revoked, quote);
    object.list("demands", status.demands, write_demand);
    if (status.fleet.brings_nodes) {
      json_object fleet{object.member("autoscaled_nodes")};
      fleet.number("max_workers", status.fleet.max_workers);
      fleet.list("types", status.fleet.types, write_node_type);
      fleet.list("nodes", status.fleet.nodes, write_asked_node);
    }
  }
  return out;
}

} // namespace troupe::protocol
