#include "router/api/request_fields.hpp"

#include "config/serve_config.hpp"

#include <algorithm>
#include <cfloat>
#include <charconv>
#include <fmt/format.h>

namespace troupe::api {

namespace dom = simdjson::dom;

namespace {

void read_sampling(field_reader& fields, sampling_params& params,
                   given_sampling& given) {
  given.temperature = fields.number("temperature", {0, 2}, params.temperature);
  if (params.temperature < temperature_min)
    params.temperature = 0;
  given.top_p = fields.number("top_p", {0, 1, true}, params.top_p);
  params.top_p = std::max(params.top_p, FLT_MIN);
  given.top_k = read_integer(fields, "top_k", -1, tokens_max, params.top_k);
  params.top_k = std::max(params.top_k, 0);
  given.min_p = fields.number("min_p", {0, 1}, params.min_p);
  fields.number("frequency_penalty", {-2, 2}, params.frequency_penalty);
  fields.number("presence_penalty", {-2, 2}, params.presence_penalty);
  given.repetition_penalty = fields.number("repetition_penalty", {0.01, 100},
                                           params.repetition_penalty);
  fields.flag("ignore_eos", params.ignore_eos);
}

/// "504", as OpenAI writes ids in keys: digits only, no leading zero.
std::optional<token_id> id_of_key(std::string_view key) {
  token_id id = 0;
  auto end = key.data() + key.size();
  auto [stop, code] = std::from_chars(key.data(), end, id);
  bool plain = !key.empty() && (key[0] != '0' || key.size() == 1);
  if (code != std::errc{} || stop != end || id < 0 || !plain || key[0] == '-')
    return std::nullopt;
  return id;
}

void read_bias(field_reader& fields, std::string_view key, dom::element value,
               sampling_params& params) {
  auto id = id_of_key(key);
  double bias = 0;
  bool right = id && !value.get(bias) && bias >= -100 && bias <= 100;
  if (right)
    params.logit_bias.emplace_back(*id, static_cast<float>(bias));
  else
    fields.refuse("logit_bias", "must map token ids (\"504\") to numbers "
                                "between -100 and 100.");
}

void read_logit_bias(field_reader& fields, sampling_params& params) {
  auto biases = fields.object("logit_bias");
  if (!biases)
    return;
  if (biases->size() > logit_bias_max)
    fields.refuse("logit_bias",
                  fmt::format("may have at most {} entries.", logit_bias_max));
  else
    for (auto [key, value] : *biases)
      read_bias(fields, key, value, params);
}

void read_stop_string(field_reader& fields, dom::element element,
                      std::vector<std::string>& stop) {
  std::string_view text;
  if (!element.get(text) && !text.empty() && text.size() <= stop_bytes_max)
    stop.emplace_back(text);
  else
    fields.refuse("stop", fmt::format("must be a string of 1 to {} bytes, or "
                                      "a list of at most {} such strings.",
                                      stop_bytes_max, stops_max));
}

void read_stop(field_reader& fields, std::vector<std::string>& stop) {
  auto element = fields.find("stop");
  if (!element)
    return;
  dom::array list;
  if (element->get(list))
    read_stop_string(fields, *element, stop);
  else if (list.size() > stops_max)
    fields.refuse("stop",
                  fmt::format("may hold at most {} strings.", stops_max));
  else
    for (auto item : list)
      read_stop_string(fields, item, stop);
}

void read_stop_token_ids(field_reader& fields, std::vector<token_id>& ids) {
  auto list = fields.list("stop_token_ids");
  if (!list)
    return;
  if (list->size() > stop_token_ids_max) {
    fields.refuse("stop_token_ids",
                  fmt::format("may hold at most {} ids.", stop_token_ids_max));
    return;
  }
  for (auto item : *list) {
    std::int64_t id = 0;
    if (!item.get(id) && id >= 0 && id <= tokens_max)
      ids.push_back(static_cast<token_id>(id));
    else
      fields.refuse("stop_token_ids", "must be a list of token ids.");
  }
}

void read_stream_options(field_reader& fields, generation_request& request) {
  auto object = fields.object("stream_options");
  if (!object)
    return;
  if (!request.stream)
    fields.refuse("stream_options", "may only be given when stream is true.");
  field_reader options{*object, "stream_options", fields.error()};
  options.flag("include_usage", request.include_usage);
  options.flag("continuous_usage_stats", request.continuous_usage);
  bool obfuscation = false;
  options.flag("include_obfuscation", obfuscation);
  request.continuous_usage = request.continuous_usage && request.include_usage;
}

void read_choices(field_reader& fields, generation_request& request) {
  read_integer(fields, "n", 1, choices_per_prompt_max, request.n);
  std::int64_t best_of = request.n;
  fields.integer("best_of", 1, choices_per_prompt_max, best_of);
  if (best_of != request.n)
    fields.refuse("best_of", "is not supported yet, unless it equals n.");
}

void read_seed(field_reader& fields, std::optional<std::uint64_t>& place) {
  std::uint64_t seed = 0;
  if (fields.seed("seed", seed))
    place = seed;
}

} // namespace

void read_shared_fields(field_reader& fields, generation_request& request) {
  fields.text("model", name_bytes_max, request.model);
  read_sampling(fields, request.params, request.given);
  read_logit_bias(fields, request.params);
  read_choices(fields, request);
  read_seed(fields, request.seed);
  read_stop(fields, request.stop);
  read_stop_token_ids(fields, request.params.stop_token_ids);
  fields.flag("include_stop_str_in_output", request.include_stop_in_output);
  fields.flag("skip_special_tokens", request.skip_special_tokens);
  fields.flag("return_token_ids", request.return_token_ids);
  fields.flag("stream", request.stream);
  read_stream_options(fields, request);
  fields.text("user", name_bytes_max, request.user);
  read_urgency(fields, request.priority, request.timeout_s);
  refuse_unsupported_fields(fields);
  check_inert_fields(fields);
}

void read_urgency(field_reader& fields, std::int32_t& priority,
                  std::optional<double>& timeout_s) {
  read_integer(fields, "priority", -config::priority_max, config::priority_max,
               priority);
  float seconds = 0;
  if (fields.number("timeout", {0, timeout_s_max, true}, seconds))
    timeout_s = seconds;
}

void read_min_tokens(field_reader& fields, generation_request& request) {
  auto& params = request.params;
  bool bounded = params.max_tokens > 0 || request.max_tokens_given;
  auto most = bounded ? std::int64_t{params.max_tokens} : tokens_max;
  if (!read_integer(fields, "min_tokens", 0, tokens_max, params.min_tokens))
    return;
  if (params.min_tokens > most)
    fields.refuse(
        "min_tokens",
        fmt::format("must be at most max_tokens, which is {}.", most));
}

} // namespace troupe::api
