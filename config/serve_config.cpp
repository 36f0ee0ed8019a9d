#include "config/serve_config.hpp"

#include "config/schema.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>

namespace troupe::config {

namespace {

constexpr std::size_t applications_max = 100;
constexpr std::size_t models_max = 1000;
constexpr std::size_t keys_max = 10'000;

/// A running cluster's nodes keep what they were started with, as in Ray.
void note_fixed(const located& value, std::string_view option) {
  if (value.read_for != purpose::run)
    value.note(fmt::format("cannot change while the cluster runs; a node has "
                           "what `troupe start {}` said",
                           option));
}

http_options read_http(const located& value) {
  http_options out;
  map_reader in{value};
  if (auto host = in.take("host"); host.present()) {
    out.host = read_text(host).value_or(out.host);
    note_fixed(host, "--http-host");
  }
  if (auto port = in.take("port"); port.present()) {
    out.port = static_cast<std::uint16_t>(
        read_integer(port, {0, 65535}).value_or(out.port));
    note_fixed(port, "--http-port");
  }
  if (auto root = in.take("root_path"); root.present())
    if (auto path = read_text(root)) {
      if (!path->empty() && (path->front() != '/' || path->back() == '/'))
        root.error("must begin with \"/\" and not end with it");
      out.root_path = *path;
    }
  out.request_timeout_s = in.number("request_timeout_s", {0.001, 1e7});
  out.keep_alive_timeout_s =
      in.number("keep_alive_timeout_s", {0.1, 1e6}).value_or(60);
  in.refuse({"ssl_keyfile", "ssl_certfile", "ssl_keyfile_password",
             "ssl_ca_certs", "location", "middlewares", "num_cpus"});
  return out;
}

logging_config read_logging(const located& value) {
  logging_config out;
  map_reader in{value};
  if (auto encoding = in.choice("encoding", {"TEXT", "JSON"})) {
    out.json = encoding == "JSON";
    note_fixed(in.take("encoding"), "--log-encoding");
  }
  if (auto level =
          in.choice("log_level", {"DEBUG", "INFO", "WARNING", "ERROR"})) {
    out.level = *level;
    note_fixed(in.take("log_level"), "--log-level");
  }
  in.refuse("logs_dir", "not supported yet; logs go to standard error");
  out.enable_access_log = in.boolean("enable_access_log").value_or(true);
  in.refuse("additional_log_standard_attrs");
  return out;
}

bool is_visible(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return c > ' ' && c < 127; });
}

/// A key without a name of its own gets its place as one.
void add_key(const located& value, api_key one, bool is_plain,
             troupe_options& out) {
  if (one.key.size() < 8 || one.key.size() > 512 || !is_visible(one.key)) {
    value.error("a key must be 8 to 512 visible ASCII characters");
    return;
  }
  if (one.name.empty())
    one.name = fmt::format("key-{}", out.api_keys.size() + 1);
  auto is_same = [&](auto member) {
    return std::any_of(
        out.api_keys.begin(), out.api_keys.end(),
        [&](const api_key& other) { return other.*member == one.*member; });
  };
  if (is_same(&api_key::key)) {
    if (!is_plain) // one that says nothing more may stand there again
      value.error("the same key stands here twice");
  } else if (is_same(&api_key::name)) {
    value.error("another key has the name \"" + one.name + "\"");
  } else {
    out.api_keys.push_back(std::move(one));
  }
}

/// An entry of api_keys: the key, or a map with what it is good for.
void read_key(const located& value, troupe_options& out) {
  if (!value.node.IsMap()) {
    if (auto text = read_text(value))
      add_key(value, {"", *text}, true, out);
    return;
  }
  map_reader in{value};
  api_key one;
  auto key = in.text("key");
  if (auto name = in.text("name")) {
    if (name->empty() || name->size() > 64 || !is_visible(*name))
      value.error("a name must be 1 to 64 visible ASCII characters");
    one.name = *name;
  }
  one.weight = in.number("weight", {0.001, 1000}).value_or(one.weight);
  one.priority = static_cast<std::int32_t>(
      in.integer("priority", {-priority_max, priority_max}).value_or(0));
  one.requests_per_minute = static_cast<std::uint32_t>(
      in.integer("requests_per_minute", {1, 1'000'000'000}).value_or(0));
  one.tokens_per_minute = static_cast<std::uint64_t>(
      in.integer("tokens_per_minute", {1, 1e12}).value_or(0));
  one.choices_per_replica = static_cast<std::uint32_t>(
      in.integer("choices_per_replica", {1, 65'536}).value_or(0));
  if (!key) {
    value.error("an entry needs its key");
    return;
  }
  one.key = *key;
  add_key(value, std::move(one), false, out);
}

void read_key_file(const located& value, troupe_options& out) {
  auto name = read_text(value);
  if (!name)
    return;
  if (value.read_for == purpose::request) {
    value.error("a request cannot name a file; give api_keys");
    return;
  }
  std::ifstream file{beside(value.file, *name)};
  if (!file) {
    value.error("the file cannot be read");
    return;
  }
  std::string line;
  while (std::getline(file, line) && out.api_keys.size() < keys_max) {
    if (!line.empty() && line.back() == '\r')
      line.pop_back();
    if (!line.empty() && line.front() != '#')
      add_key(value, {"", line}, true, out);
  }
  if (out.api_keys.empty())
    value.error("the file holds no keys");
}

troupe_options read_troupe(const located& value) {
  troupe_options out;
  map_reader in{value};
  auto keys = in.list("api_keys");
  for (const auto& key : keys)
    read_key(key, out);
  if (auto file = in.take("api_keys_file"); file.present()) {
    auto inlined = out.api_keys.size();
    read_key_file(file, out);
    YAML::Node map = value.node;
    map.remove("api_keys_file");
    for (auto i = inlined; i < out.api_keys.size(); ++i)
      map["api_keys"].push_back(out.api_keys[i].key);
  }
  out.threads_per_replica = static_cast<std::uint32_t>(
      in.integer("threads_per_replica", {1, 1024}).value_or(0));
  out.max_requests_in_flight = static_cast<std::uint32_t>(
      in.integer("max_requests_in_flight", {1, 1'000'000}).value_or(1024));
  out.failover_exact =
      in.choice("failover", {"exact", "best_effort"}) == "exact";
  out.data_network_trusted =
      in.choice("data_network", {"untrusted", "trusted"}) == "trusted";
  out.restarts_per_minute =
      static_cast<std::uint32_t>(in.integer("restarts_per_minute", {0, 10'000})
                                     .value_or(out.restarts_per_minute));
  out.restart_pause_max_s =
      in.number("restart_pause_s", {0, 60}).value_or(out.restart_pause_max_s);
  in.refuse({"cors", "admission"});
  return out;
}

/// One entry of llm_configs: a map, or the path of a file that holds one.
llm_config read_model_entry(const located& entry) {
  if (!entry.node.IsScalar())
    return read_llm_config(entry);
  if (entry.read_for == purpose::request) {
    entry.error("must be a map: a request cannot name a file");
    return {};
  }
  auto file = beside(entry.file, entry.node.Scalar());
  if (auto why = why_no_file(file); !why.empty()) {
    entry.error(fmt::format("\"{}\": {}", entry.node.Scalar(), why));
    return {};
  }
  auto document = open_yaml(file, *entry.findings);
  if (!document.present())
    return {};
  document.read_for = entry.read_for;
  auto out = read_llm_config(document);
  YAML::Node place = entry.node;
  place = document.node;
  return out;
}

void read_args(const located& value, application& out) {
  if (!value.present()) {
    value.error("is required: args.llm_configs lists the models");
    return;
  }
  map_reader in{value};
  auto entries = in.list("llm_configs");
  if (entries.empty())
    value.error("llm_configs must list at least one model");
  if (entries.size() > models_max)
    value.error(
        fmt::format("llm_configs lists more than {} models", models_max));
  entries.resize(std::min(entries.size(), models_max));
  for (const auto& entry : entries)
    out.models.push_back(read_model_entry(entry));
  for (auto key : {"ingress_cls_config", "ingress_deployment_config"})
    in.refuse(key, "not supported: the router needs no deployment of its own");
  in.refuse("api_key", "not supported yet; use troupe.api_keys");
}

void read_route_prefix(const located& value, application& out) {
  auto prefix = read_text(value);
  if (!prefix)
    return;
  if (prefix->empty() || prefix->front() != '/' ||
      (prefix->size() > 1 && prefix->back() == '/') ||
      prefix->find_first_of("{}?#% ") != std::string::npos ||
      prefix->find("//") != std::string::npos)
    value.error("must begin with \"/\", not end with it, and hold no braces");
  else
    out.route_prefix = *prefix;
}

void read_import_path(const located& value) {
  if (!value.present()) {
    value.error("is required: ray.serve.llm:build_openai_app");
    return;
  }
  const std::vector<std::string_view> known{
      "ray.serve.llm:build_openai_app",
      "ray.serve.llm.builders:build_openai_app"};
  auto path = read_text(value);
  if (!path || std::find(known.begin(), known.end(), *path) != known.end())
    return;
  if (auto meant = nearest(*path, known); !meant.empty())
    value.error(
        fmt::format("\"{}\" is not known; did you mean {}?", *path, meant));
  else if (path->starts_with("ray.serve.llm"))
    value.error(fmt::format("\"{}\": not supported yet; allowed now: "
                            "ray.serve.llm:build_openai_app",
                            *path));
  else
    value.error(fmt::format("\"{}\": Troupe runs no Python; allowed: "
                            "ray.serve.llm:build_openai_app",
                            *path));
}

application read_application(const located& value) {
  application out;
  out.where = value.where();
  map_reader in{value};
  auto name = in.take("name");
  out.name = "default"; // as Ray has it
  if (name.present())
    if (auto text = read_text(name)) {
      if (text->empty())
        name.error("must not be empty");
      out.name = *text;
    }
  if (auto prefix = in.take("route_prefix"); prefix.present())
    read_route_prefix(prefix, out);
  read_import_path(in.take("import_path"));
  read_args(in.take("args"), out);
  if (auto external = in.take("external_scaler_enabled"); external.present()) {
    out.external_scaler = read_boolean(external).value_or(false);
    auto scaled = std::any_of(out.models.begin(), out.models.end(),
                              [](const llm_config& model) {
                                return model.deployment.autoscaling.has_value();
                              });
    if (out.external_scaler && scaled)
      external.error("true: an autoscaling_config stands in a model; one of "
                     "the two can say how many replicas there are");
  }
  in.refuse({"runtime_env", "deployments", "autoscaling_policy",
             "logging_config", "docs_path", "host", "port"});
  return out;
}

/// Names, prefixes and model ids that must differ from each other.
void check_unique(const std::vector<application>& applications,
                  diagnostics& findings) {
  std::vector<std::string_view> names;
  std::vector<std::string_view> prefixes;
  auto once = [&](std::vector<std::string_view>& seen, std::string_view value,
                  const position& where, std::string_view what) {
    if (value.empty())
      return;
    if (std::find(seen.begin(), seen.end(), value) != seen.end())
      findings.error(where, "",
                     fmt::format("{} \"{}\" is used twice", what, value));
    seen.push_back(value);
  };
  for (const auto& app : applications) {
    once(names, app.name, app.where, "application name");
    once(prefixes, app.route_prefix, app.where, "route_prefix");
    std::vector<std::string_view> models;
    for (const auto& model : app.models)
      once(models, model.model_id, model.where, "model_id");
  }
}

void read_applications(map_reader& in, serve_config& out) {
  auto entries = in.list("applications");
  if (entries.empty())
    in.whole().error("needs a list `applications` with at least one entry");
  if (entries.size() > applications_max)
    in.whole().error(
        fmt::format("more than {} applications", applications_max));
  entries.resize(std::min(entries.size(), applications_max));
  for (const auto& entry : entries)
    out.applications.push_back(read_application(entry));
  check_unique(out.applications, *in.whole().findings);
}

void read_root(const located& document, serve_config& out) {
  map_reader in{document};
  if (auto location =
          in.choice("proxy_location", {"EveryNode", "HeadOnly", "Disabled"})) {
    out.proxy_location = *location;
  }
  out.http = read_http(in.take("http_options"));
  out.logging = read_logging(in.take("logging_config"));
  out.troupe = read_troupe(in.take("troupe"));
  read_applications(in, out);
  out.target_capacity = in.number("target_capacity", {0, 100});
  in.refuse("grpc_options");
}

/// Reads `document` whole into `out`.
void read_document(const located& document, loaded_config& out) {
  try {
    read_root(document, out.values);
  } catch (const YAML::Exception& e) {
    out.findings.error({document.file, e.mark.line + 1, e.mark.column + 1}, "",
                       e.msg);
  }
  out.findings.sort();
}

} // namespace

loaded_config load(const std::filesystem::path& file, purpose read_for) {
  loaded_config out;
  auto document = open_yaml(file, out.findings);
  if (!document.present())
    return out;
  document.read_for = read_for;
  read_document(document, out);
  return out;
}

loaded_config load_text(const std::string& text, const std::string& name) {
  loaded_config out;
  auto document = parse_yaml(whole_characters(text), name, out.findings);
  if (!document.present())
    return out;
  document.read_for = purpose::request;
  read_document(document, out);
  return out;
}

std::string to_json(const std::filesystem::path& file) {
  loaded_config out;
  auto document = open_yaml(file, out.findings);
  if (!document.present())
    return "null";
  // Reading puts the contents of files and absolute paths in place.
  document.read_for = purpose::deploy;
  read_document(document, out);
  return to_json(document.node);
}

} // namespace troupe::config
