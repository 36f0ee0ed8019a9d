#include "router/metrics.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

namespace troupe::router {

namespace {

std::string label_value(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '\\' || c == '"')
      out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

std::string model_labels(const std::string& application,
                         const std::string& model) {
  return fmt::format("application=\"{}\",model_name=\"{}\"",
                     label_value(application), label_value(model));
}

/// Writes families of samples.
class text_writer {
public:
  void family(std::string_view name, std::string_view type,
              std::string_view help) {
    name_ = name;
    add("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }

  template <class T>
  void sample(std::string_view labels, T value) {
    if (labels.empty())
      add("{} {}\n", name_, value);
    else
      add("{}{{{}}} {}\n", name_, labels, value);
  }

  void sample(std::string_view labels, const histogram& what) {
    what.write(name_, labels, out);
  }

  std::string out;

private:
  template <class... Ts>
  void add(fmt::format_string<Ts...> form, Ts&&... values) {
    fmt::format_to(std::back_inserter(out), form, std::forward<Ts>(values)...);
  }

  std::string name_;
};

struct load_gauge {
  std::string_view name;
  std::string_view type;
  std::string_view help;
  double (*value)(const protocol::replica_load&);
};

double kv_usage(const protocol::replica_load& load) {
  if (load.kv_blocks_total == 0)
    return 0;
  auto used = load.kv_blocks_total -
              std::min(load.kv_blocks_free, load.kv_blocks_total);
  return static_cast<double>(used) / load.kv_blocks_total;
}

constexpr load_gauge load_gauges[] = {
    {"ray_vllm_num_requests_running", "gauge",
     "Choices that a replica computes.",
     [](const protocol::replica_load& l) -> double { return l.running; }},
    {"ray_vllm_num_requests_waiting", "gauge",
     "Choices that wait inside a replica.",
     [](const protocol::replica_load& l) -> double { return l.waiting; }},
    {"ray_vllm_kv_cache_usage_perc", "gauge",
     "Share of a replica's KV blocks in use, 0 to 1.", kv_usage},
    {"ray_vllm_prefix_cache_queries", "counter",
     "Prompt tokens looked up in the prefix cache.",
     [](const protocol::replica_load& l) -> double {
       return l.prefix_queries;
     }},
    {"ray_vllm_prefix_cache_hits", "counter",
     "Prompt tokens found in the prefix cache.",
     [](const protocol::replica_load& l) -> double { return l.prefix_hits; }},
    {"ray_vllm_num_preemptions", "counter",
     "Choices preempted by a full cache.",
     [](const protocol::replica_load& l) -> double { return l.preemptions; }},
    {"troupe_engine_steps", "counter", "Forward passes of a replica.",
     [](const protocol::replica_load& l) -> double { return l.steps; }},
};

void write_loads(const std::vector<engine_load>& loads, text_writer& to) {
  for (auto& gauge : load_gauges) {
    to.family(gauge.name, gauge.type, gauge.help);
    for (auto& one : loads)
      to.sample(fmt::format("{},replica=\"{}\",node=\"{}\"",
                            model_labels(one.application, one.model),
                            label_value(one.replica), label_value(one.node)),
                gauge.value(one.load));
  }
}

struct gpu_gauge {
  std::string_view name;
  std::string_view help;
  double (*value)(const protocol::gpu_use&); ///< below 0: not known
};

constexpr gpu_gauge gpu_gauges[] = {
    {"troupe_gpu_memory_used_bytes",
     "Memory in use of a replica's GPU, by whomever.",
     [](const protocol::gpu_use& g) {
       return static_cast<double>(g.memory_used);
     }},
    {"troupe_gpu_memory_total_bytes", "Memory of a replica's GPU.",
     [](const protocol::gpu_use& g) {
       return static_cast<double>(g.memory_total);
     }},
    {"troupe_gpu_busy_ratio",
     "Share of the time that a replica's GPU computed, of late, 0 to 1.",
     [](const protocol::gpu_use& g) { return g.busy_percent / 100.0; }},
};

void write_gpus(const std::vector<engine_load>& loads, text_writer& to) {
  for (const auto& gauge : gpu_gauges) {
    to.family(gauge.name, "gauge", gauge.help);
    for (const auto& one : loads)
      for (const auto& gpu : one.gpus)
        if (const auto value = gauge.value(gpu); value >= 0)
          to.sample(
              fmt::format("{},replica=\"{}\",node=\"{}\",gpu=\"{}\"",
                          model_labels(one.application, one.model),
                          label_value(one.replica),
                          label_value(gpu.node.empty() ? one.node : gpu.node),
                          label_value(gpu.gpu)),
              value);
  }
}

void write_counts(const std::vector<replica_count>& models, text_writer& to) {
  auto gauge = [&](std::string_view name, std::string_view help,
                   std::uint32_t replica_count::*member) {
    to.family(name, "gauge", help);
    for (const auto& one : models)
      to.sample(model_labels(one.application, one.model), one.*member);
  };
  gauge("ray_serve_autoscaling_target_replicas",
        "Replicas that a model is to have.", &replica_count::wanted);
  gauge("troupe_replicas_ready", "Replicas of a model that serve.",
        &replica_count::ready);
}

struct node_gauge {
  std::string_view name;
  std::string_view help;
  std::string_view resource;
  std::vector<protocol::resource> node_load::*amounts;
};

constexpr node_gauge node_gauges[] = {
    {"troupe_node_cpus", "CPUs that a node offers to replicas.", "CPU",
     &node_load::offered},
    {"troupe_node_cpus_used", "CPUs of a node that replicas were given.", "CPU",
     &node_load::used},
    {"troupe_node_gpus", "GPUs that a node offers to replicas.", "GPU",
     &node_load::offered},
    {"troupe_node_gpus_used", "GPUs of a node that replicas were given.", "GPU",
     &node_load::used},
    {"troupe_node_memory_bytes", "Memory that a node offers to replicas.",
     "memory", &node_load::offered},
    {"troupe_node_memory_used_bytes",
     "Memory of a node that replicas were given.", "memory", &node_load::used},
};

double amount_of(std::string_view name,
                 const std::vector<protocol::resource>& all) {
  for (const auto& one : all)
    if (one.name == name)
      return one.amount;
  return 0;
}

void write_nodes(const std::vector<node_load>& nodes, text_writer& to) {
  auto labels = [](const node_load& one) {
    return fmt::format("node=\"{}\"", label_value(one.node));
  };
  to.family(
      "troupe_node_up", "gauge",
      "1 = the node is in the cluster, 0 = it is lost and expected back.");
  for (const auto& one : nodes)
    to.sample(labels(one), one.alive ? 1 : 0);
  for (const auto& gauge : node_gauges) {
    to.family(gauge.name, "gauge", gauge.help);
    for (const auto& one : nodes)
      if (one.alive)
        to.sample(labels(one), amount_of(gauge.resource, one.*gauge.amounts));
  }
}

void write_replicas(const replica_gauges& from, text_writer& to) {
  auto all = from.all();
  auto each = [&](std::string_view name, std::string_view help,
                  std::uint64_t replica_counts::*member) {
    to.family(name, "counter", help);
    for (auto& one : all)
      to.sample(fmt::format("{},replica=\"{}\"",
                            model_labels(one.application, one.model),
                            label_value(one.replica)),
                one.*member);
  };
  each("troupe_router_choices_sent_total",
       "Choices that this router sent to a replica.",
       &replica_counts::choices_sent);
  each("troupe_router_predicted_cached_tokens_total",
       "Prompt tokens that this router thought to be cached at the replica "
       "that it chose.",
       &replica_counts::predicted_tokens);
  each("troupe_router_reported_cached_tokens_total",
       "Prompt tokens of the same choices that the replica had cached.",
       &replica_counts::reported_tokens);
}

void write_moves(const router_gauges& router, text_writer& to) {
  auto count = [&](std::string_view name, std::string_view help,
                   const std::atomic<std::uint64_t>& value) {
    to.family(name, "counter", help);
    to.sample("", value.load());
  };
  count("troupe_streams_moved_total",
        "Streams that went on at another replica.", router.streams_moved);
  count("troupe_streams_class_changed_total",
        "Streams that went on in another arithmetic class.",
        router.streams_class_changed);
  count("troupe_streams_suspected_total",
        "Choices that were in the step that ended a replica.",
        router.streams_suspected);
  count("troupe_poison_requests_total", "Requests found to end replicas.",
        router.poison_requests);
  count("troupe_poison_requests_refused_total",
        "Requests refused because they had ended replicas before.",
        router.poison_requests_refused);
  count("troupe_router_requests_late_total",
        "Requests refused because they could not be served in their time.",
        router.requests_late);
  count("troupe_router_requests_expired_total",
        "Requests that left the queue because their time was over.",
        router.requests_expired);
  count("troupe_router_retries_put_off_total",
        "Times that choices were not sent again at once for lack of budget.",
        router.retries_put_off);
  to.family("troupe_stream_move_wait_seconds", "histogram",
            "From the loss of a stream's replica to its sending to the next.");
  to.sample("", router.move_wait);
}

void write_tenants(const std::vector<std::shared_ptr<tenant_account>>& all,
                   text_writer& to) {
  auto each = [&](std::string_view name, std::string_view help, auto value) {
    to.family(name, "counter", help);
    for (const auto& one : all)
      to.sample(fmt::format("tenant=\"{}\"", label_value(one->name())),
                value(*one));
  };
  each("troupe_tenant_requests_total", "Requests taken, by the key's name.",
       [](const tenant_account& one) { return one.used().requests; });
  each("troupe_tenant_tokens_total", "Tokens of their prompts and answers.",
       [](const tenant_account& one) { return one.used().tokens; });
  each("troupe_tenant_requests_refused_total",
       "Requests refused because a key's limit was reached.",
       [](const tenant_account& one) { return one.refused(); });
}

} // namespace

std::shared_ptr<model_metrics> metrics::of(const std::string& application,
                                           const std::string& model) {
  std::lock_guard lock{mutex_};
  auto& found = models_[{application, model}];
  if (!found)
    found = std::make_shared<model_metrics>();
  return found;
}

void metrics::keep_only(const protocol::routing_table& table) {
  std::lock_guard lock{mutex_};
  std::erase_if(models_, [&](auto& one) {
    return std::none_of(table.models.begin(), table.models.end(),
                        [&](const protocol::model_route& model) {
                          return model.application == one.first.first &&
                                 model.model == one.first.second;
                        });
  });
}

void metrics::count(std::string_view route, std::string_view method, int status,
                    double seconds) {
  std::lock_guard lock{mutex_};
  ++requests_[{std::string{route}, std::string{method}, status}];
  auto& latency = latency_[std::string{route}];
  if (!latency)
    latency = std::make_unique<histogram>();
  latency->observe(seconds);
}

std::string metrics::text(
    const router_gauges& router, std::size_t requests_in_flight,
    const cluster_load& loads,
    const std::vector<std::shared_ptr<tenant_account>>& tenants) const {
  std::lock_guard lock{mutex_};
  text_writer to;
  to.family("ray_serve_num_http_requests", "counter", "Answers by status.");
  for (auto& [key, count] : requests_)
    to.sample(fmt::format("route=\"{}\",method=\"{}\",status_code=\"{}\"",
                          std::get<0>(key), std::get<1>(key), std::get<2>(key)),
              count);
  to.family("ray_serve_num_http_error_requests", "counter",
            "Answers of status 400 and above.");
  for (auto& [key, count] : requests_)
    if (std::get<2>(key) >= 400)
      to.sample(fmt::format("route=\"{}\",method=\"{}\",error_code=\"{}\"",
                            std::get<0>(key), std::get<1>(key),
                            std::get<2>(key)),
                count);
  to.family("ray_serve_http_request_latency_ms", "histogram",
            "From a request's arrival to the end of its answer.");
  for (auto& [route, latency] : latency_)
    to.sample(fmt::format("route=\"{}\"", route), *latency);
  to.family("troupe_requests_in_flight", "gauge",
            "Generation requests whose answer has not ended.");
  to.sample("", requests_in_flight);
  to.family("ray_serve_deployment_queued_queries", "gauge",
            "Choices that wait in the router for a replica.");
  to.sample("", router.choices_waiting.load());
  to.family("troupe_router_choices_waiting_elsewhere", "gauge",
            "Choices that wait in other routers, as this one was told.");
  to.sample("", router.choices_waiting_elsewhere.load());
  to.family("ray_serve_num_ongoing_requests_at_replicas", "gauge",
            "Choices sent to replicas that have not ended.");
  to.sample("", router.choices_sent.load());
  write_replicas(router.replicas, to);
  write_moves(router, to);
  write_tenants(tenants, to);
  auto each = [&](std::string_view name, std::string_view type,
                  std::string_view help, auto value) {
    to.family(name, type, help);
    for (auto& [key, model] : models_)
      value(model_labels(key.first, key.second), *model);
  };
  auto counter = [&](std::string_view name, std::string_view help,
                     std::atomic<std::uint64_t> model_metrics::*member) {
    each(name, "counter", help,
         [&](const std::string& labels, const model_metrics& model) {
           to.sample(labels, (model.*member).load());
         });
  };
  auto times = [&](std::string_view name, std::string_view help,
                   histogram model_metrics::*member) {
    each(name, "histogram", help,
         [&](const std::string& labels, const model_metrics& model) {
           to.sample(labels, model.*member);
         });
  };
  counter("ray_vllm_prompt_tokens_total", "Prompt tokens of answered requests.",
          &model_metrics::prompt_tokens);
  counter("ray_vllm_generation_tokens_total", "Tokens generated for clients.",
          &model_metrics::generation_tokens);
  counter("troupe_cached_prompt_tokens_total",
          "Prompt tokens that a prefix cache held.",
          &model_metrics::cached_tokens);
  each("ray_vllm_request_success_total", "counter",
       "Ended choices (stop, length) and requests (abort, error) by reason.",
       [&](const std::string& labels, const model_metrics& model) {
         auto reason = [&](std::string_view name, std::uint64_t count) {
           to.sample(fmt::format("{},finished_reason=\"{}\"", labels, name),
                     count);
         };
         reason("stop", model.finished_stop);
         reason("length", model.finished_length);
         reason("abort", model.finished_abort);
         reason("error", model.finished_error);
       });
  times("ray_vllm_time_to_first_token_seconds",
        "From a request's arrival to its first token.",
        &model_metrics::first_token);
  times("ray_vllm_time_per_output_token_seconds",
        "Mean time per token of a request, after its first.",
        &model_metrics::per_token);
  times("ray_vllm_e2e_request_latency_seconds",
        "From a request's arrival to the end of its answer.",
        &model_metrics::whole);
  write_loads(loads.replicas, to);
  write_gpus(loads.replicas, to);
  write_counts(loads.models, to);
  write_nodes(loads.nodes, to);
  return std::move(to.out);
}

} // namespace troupe::router
