#include "config/schema.hpp"
#include "engine/weights/download/model_reference.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace troupe::config {

namespace {

/// Ray's accelerator names that are NVIDIA GPUs (what Troupe has an engine
/// for).
constexpr std::array<std::string_view, 21> gpu_types{
    "V100", "P100", "T4",       "P4",       "K80",          "A10G", "L4",
    "L40S", "A100", "A100-40G", "A100-80G", "H100",         "H200", "H20",
    "B200", "B300", "GB200",    "GB300",    "RTX-PRO-6000", "A40",  "A6000",
};

/// Other accelerators that Ray knows.
constexpr std::array<std::string_view, 16> other_types{
    "Intel-GPU-Max-1550",
    "Intel-GPU-Max-1100",
    "Intel-GAUDI",
    "AMD-Instinct-MI100",
    "AMD-Instinct-MI210",
    "AMD-Instinct-MI250X",
    "AMD-Instinct-MI250X-MI250",
    "AMD-Instinct-MI300X-OAM",
    "AMD-Radeon-R9-200-HD-7900",
    "AMD-Radeon-HD-7900",
    "aws-neuron-core",
    "TPU-V4",
    "TPU-V5P",
    "TPU-V5LITEPOD",
    "TPU-V6E",
    "Ascend910B",
};

void read_accelerator_type(const located& value, llm_config& out) {
  auto type = read_text(value);
  if (!type)
    return;
  if (*type == "A10")
    *type = "A10G"; // as Ray rewrites it
  if (std::find(other_types.begin(), other_types.end(), *type) !=
      other_types.end()) {
    value.error(fmt::format("{}: not supported; Troupe runs on CPUs and NVIDIA "
                            "GPUs",
                            *type));
    return;
  }
  if (std::find(gpu_types.begin(), gpu_types.end(), *type) == gpu_types.end()) {
    auto meant = nearest(*type, {gpu_types.begin(), gpu_types.end()});
    value.error(fmt::format("unknown accelerator \"{}\"{}; known: {}", *type,
                            meant.empty()
                                ? std::string{}
                                : fmt::format(", did you mean {}?", meant),
                            fmt::join(gpu_types, ", ")));
    return;
  }
  out.accelerator_type = *type;
  out.device = device_wish::gpu;
}

bundle read_bundle(const located& value, double default_gpu) {
  bundle out{{"CPU", 0}, {"GPU", default_gpu}};
  if (!value.node.IsMap()) {
    value.error("must be a map of resources, such as {CPU: 1, GPU: 1}");
    return out;
  }
  for (const auto& entry : value.node) {
    auto name = entry.first.IsScalar() ? entry.first.Scalar() : std::string{};
    located amount{entry.second, value.file, value.path + "." + name,
                   value.findings};
    if (auto given = read_resource(name, amount))
      out[name] = *given;
  }
  return out;
}

/// Whether the bundle is one for each rank.
bool read_placement(const located& value, bool cpu_asked, llm_config& out) {
  map_reader in{value};
  auto default_gpu = cpu_asked ? 0.0 : 1.0;
  auto single = in.take("bundle_per_worker");
  auto many = in.take("bundles");
  if (single.present() && many.present())
    many.error("stands beside bundle_per_worker; give one of the two");
  if (single.present())
    out.bundles.push_back(read_bundle(single, default_gpu));
  else if (many.present() && many.node.IsSequence() && many.node.size() > 0)
    for (std::size_t i = 0; i < many.node.size(); ++i)
      out.bundles.push_back(
          read_bundle({many.node[i], many.file,
                       fmt::format("{}[{}]", many.path, i), many.findings},
                      default_gpu));
  else
    value.error("needs bundles (a list that is not empty) or "
                "bundle_per_worker");
  if (auto strategy = in.choice(
          "strategy", {"PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD"}))
    out.placement_strategy = *strategy;
  auto gpu = std::any_of(out.bundles.begin(), out.bundles.end(),
                         [](const auto& b) { return b.at("GPU") > 0; });
  if (cpu_asked && gpu)
    value.error("asks for a GPU although accelerator_config.kind is cpu");
  out.device = gpu ? device_wish::gpu : out.device;
  if (!gpu && out.accelerator_type.empty())
    out.device = device_wish::cpu;
  return single.present();
}

/// What stands for a model that is not here, where it may be elsewhere.
void note_missing(const located& value, const std::filesystem::path& path) {
  if (value.read_for == purpose::deploy)
    value.note(fmt::format("{} is not on this machine; every node that is to "
                           "run the model needs it there",
                           path.string()));
}

/// A path that is not on this machine.
std::string read_missing_path(const located& value, const std::string& source,
                              const std::filesystem::path& path) {
  if (value.read_for == purpose::request && source.front() != '/') {
    value.error(fmt::format("\"{}\": must be an absolute path", source));
    return {};
  }
  if (value.read_for == purpose::run) {
    value.error(fmt::format("\"{}\": no such file or directory (relative "
                            "paths start at the folder of {})",
                            source, value.file));
    return {};
  }
  note_missing(value, path);
  value.replace(path.string());
  return path.string();
}

/// A path, made absolute, or what names a model elsewhere. What exists beside
/// the file is a path whatever it looks like.
std::string read_source(const located& value) {
  auto source = read_text(value);
  if (!source)
    return {};
  if (source->empty()) {
    value.error("must not be empty");
    return {};
  }
  auto path = beside(value.file, *source);
  std::error_code code;
  if (value.read_for != purpose::request &&
      std::filesystem::exists(path, code)) {
    value.replace(path.string());
    return path.string();
  }
  auto reference = download::parse_model_reference(*source);
  if (!reference) {
    value.error(reference.error().message);
    return {};
  }
  if (std::holds_alternative<std::filesystem::path>(*reference))
    return read_missing_path(value, *source, path);
  return *source;
}

/// Ray's mirror map: a bucket that holds what the hub would.
std::string read_mirror(const located& value) {
  map_reader in{value};
  in.refuse("extra_files", "not supported: all files come from bucket_uri");
  auto uri = in.take("bucket_uri");
  if (!uri.present()) {
    value.error("needs bucket_uri");
    return {};
  }
  auto text = read_text(uri);
  auto reference = download::parse_model_reference(text.value_or(""));
  if (!text)
    return {};
  if (!reference)
    uri.error(reference.error().message);
  else if (!std::holds_alternative<download::bucket_reference>(*reference))
    uri.error("must be s3://bucket/prefix or gs://bucket/prefix");
  else {
    value.replace(*text);
    return *text;
  }
  return {};
}

void read_model_loading(const located& value, llm_config& out) {
  if (!value.present()) {
    value.error("is required");
    return;
  }
  map_reader in{value};
  auto id = in.take("model_id");
  if (!id.present())
    id.error("model_loading_config.model_id is required");
  else if (auto text = read_text(id)) {
    constexpr std::size_t id_bytes_max = 256;
    auto bad = [](unsigned char c) { return c <= ' ' || c == 127; };
    if (text->empty() || text->size() > id_bytes_max ||
        std::any_of(text->begin(), text->end(), bad))
      id.error("must be 1 to 256 characters without spaces or control "
               "characters");
    else if (text->find(':') != std::string::npos)
      id.error("must not hold a colon (it parts a model from its adapter)");
    else
      out.model_id = *text;
  }
  auto source = in.take("model_source");
  if (source.present() && source.node.IsMap())
    out.model_source = read_mirror(source);
  else if (source.present())
    out.model_source = read_source(source);
  else if (auto hub = download::parse_model_reference(out.model_id);
           hub && std::holds_alternative<download::hub_reference>(*hub))
    out.model_source = out.model_id;
  else if (!out.model_id.empty())
    source.error(fmt::format("is missing, and \"{}\" is no model of a hub",
                             out.model_id));
  if (auto tokenizer = in.take("tokenizer_source"); tokenizer.present())
    out.tokenizer_source = read_source(tokenizer);
}

void read_runtime_env(const located& value, llm_config& out) {
  map_reader in{value};
  for (auto key : {"pip", "conda", "uv", "working_dir", "py_modules",
                   "container", "image_uri"})
    in.refuse(key, "not supported: Troupe installs nothing at run time and "
                   "runs no Python");
  auto vars = in.take("env_vars");
  if (!vars.present())
    return;
  if (!vars.node.IsMap()) {
    vars.error("must be a map of names to texts");
    return;
  }
  for (const auto& entry : vars.node) {
    auto name = entry.first.IsScalar() ? entry.first.Scalar() : std::string{};
    located text{entry.second, vars.file, vars.path + "." + name,
                 vars.findings};
    if (name.empty() || name.find('=') != std::string::npos ||
        name.find('\0') != std::string::npos)
      vars.error("environment names must not be empty or hold \"=\"");
    else if (auto given = read_text(text); given && *given == hidden_value)
      text.error("this stands for a value that is not shown; give the value");
    else if (given)
      out.env_vars.emplace_back(name, *given);
  }
}

} // namespace

bool read_resources(map_reader& in, llm_config& out) {
  if (auto type = in.take("accelerator_type"); type.present())
    read_accelerator_type(type, out);
  auto cpu_asked = false;
  if (auto config = in.take("accelerator_config"); config.present()) {
    map_reader kinds{config};
    auto kind = kinds.choice("kind", {"cpu", "gpu", "tpu"});
    kinds.refuse("topology");
    if (kind == "tpu")
      config.error("tpu: not supported; Troupe runs on CPUs and NVIDIA GPUs");
    cpu_asked = kind == "cpu";
    if (cpu_asked && !out.accelerator_type.empty())
      config.error("kind cpu stands beside accelerator_type " +
                   out.accelerator_type);
    if (kind == "gpu")
      out.device = device_wish::gpu;
    if (cpu_asked)
      out.device = device_wish::cpu;
  }
  if (auto group = in.take("placement_group_config"); group.present())
    return read_placement(group, cpu_asked, out);
  return false;
}

llm_config read_llm_config(const located& value) {
  llm_config out;
  out.where = value.where();
  map_reader in{value};
  read_model_loading(in.take("model_loading_config"), out);
  in.choice("llm_engine", {"vLLM"}); // Ray's one member: the native engine here
  const auto is_per_rank = read_resources(in, out);
  auto deployment = in.take("deployment_config");
  out.deployment = read_deployment_config(deployment);
  if (out.deployment.num_gpus > 0 && out.device == device_wish::cpu)
    deployment.error("ray_actor_options.num_gpus asks for a GPU although the "
                     "model is to run on the CPU");
  else if (out.deployment.num_gpus > 0)
    out.device = device_wish::gpu;
  auto kwargs = in.take("engine_kwargs");
  out.engine = read_engine_kwargs(kwargs);
  const auto& kv = out.engine.kv_cache_dtype;
  if (kv == "fp8_e4m3" && out.device == device_wish::cpu)
    kwargs.error("kv_cache_dtype fp8 is for GPUs, and the model is to run on "
                 "the CPU");
  if (kv == "bfloat16" && out.device == device_wish::gpu)
    kwargs.error("kv_cache_dtype bfloat16 is for CPUs, and the model is to run "
                 "on a GPU");
  if (is_per_rank && !out.bundles.empty())
    out.bundles.resize(
        std::max<std::size_t>(out.engine.tensor_parallel_size, 1),
        bundle{out.bundles.front()});
  if (auto env = in.take("runtime_env"); env.present())
    read_runtime_env(env, out);
  in.only("log_engine_metrics", true, "false: not supported yet");
  in.refuse(
      {"lora_config", "server_cls", "experimental_configs", "callback_config"});
  return out;
}

} // namespace troupe::config
