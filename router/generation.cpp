#include "router/generation.hpp"

#include "router/api/fit_to_model.hpp"

#include <fmt/format.h>

namespace troupe::router {

namespace {

using api::api_error;
using api::api_result;
using api::chat_request;
using api::completion_request;
using prompt_list = std::vector<std::vector<token_id>>;

std::string prompt_path(const completion_request& request, std::size_t index) {
  return request.prompts.size() == 1 ? "prompt"
                                     : fmt::format("prompt[{}]", index);
}

api_result<prompt_list> make_prompts(chat_request& request,
                                     const model_text& model) {
  auto ids = chat_prompt(model, request);
  if (!ids)
    return ids.error();
  return prompt_list{std::move(*ids)};
}

api_result<prompt_list> make_prompts(completion_request& request,
                                     const model_text& model) {
  prompt_list out;
  for (std::size_t i = 0; i < request.prompts.size(); ++i) {
    auto ids = raw_prompt(model, request.prompts[i], request.add_special_tokens,
                          prompt_path(request, i));
    if (!ids)
      return ids.error();
    out.push_back(std::move(*ids));
  }
  return out;
}

answer_plan shared_plan(const api::generation_request& request,
                        const protocol::model_route& route,
                        const model_text& model,
                        const generation_context& context) {
  answer_plan plan;
  plan.head.model = route.model;
  plan.head.created = context.created;
  plan.head.return_token_ids = request.return_token_ids;
  plan.head.include_usage = request.include_usage;
  plan.stream = request.stream;
  plan.include_usage = request.include_usage;
  plan.continuous_usage = request.continuous_usage;
  plan.include_stop_in_output = request.include_stop_in_output;
  plan.skip_special_tokens = request.skip_special_tokens;
  plan.max_tokens = request.params.max_tokens;
  plan.min_tokens = request.params.min_tokens;
  plan.stop = request.stop;
  plan.stop_token_ids = request.params.stop_token_ids;
  plan.n = request.n;
  plan.tokenizer = model.tokenizer;
  plan.vocabulary_size = model.vocabulary_size;
  return plan;
}

void finish_plan(const chat_request& request, const model_text&,
                 const generation_context& context, answer_plan& plan) {
  plan.chat = true;
  plan.head.id = "chatcmpl-" + context.request_id;
  plan.with_logprobs = request.logprobs;
}

void finish_plan(const completion_request& request, const model_text& model,
                 const generation_context& context, answer_plan& plan) {
  plan.head.id = "cmpl-" + context.request_id;
  plan.with_logprobs = request.params.logprobs >= 0;
  plan.echo = request.echo;
  plan.echo_only = request.echo && request.params.max_tokens == 0;
  if (request.echo)
    for (auto& prompt : request.prompts)
      plan.prompt_texts.push_back(shown_prompt(model, prompt));
}

/// The seed of a request without one: a random one, or, with a seed of the
/// model's, the next of the row that this one starts (SplitMix64: Steele, Lea
/// and Flood, 2014).
std::uint64_t drawn_seed(std::optional<std::uint64_t> of_model,
                         const generation_context& context) {
  if (!of_model)
    return context.seed;
  auto z = *of_model + (context.turn + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

std::vector<protocol::request_record>
make_records(const api::generation_request& request, const answer_plan& plan,
             const model_text& model, const generation_context& context) {
  std::vector<protocol::request_record> out;
  auto seed = request.seed.value_or(drawn_seed(model.defaults.seed, context));
  for (std::size_t i = 0; i < plan.prompts.size() * plan.n; ++i) {
    protocol::request_record record;
    record.request_id = context.request_id;
    record.model = plan.head.model;
    record.prompt = plan.prompts[i / plan.n];
    record.params = request.params;
    record.params.seed = seed;
    record.params.choice = static_cast<std::uint32_t>(i);
    // A replica draws at least one token: what is not wanted is dropped here.
    if (plan.echo_only)
      record.params.max_tokens = 1;
    record.deadline_ms = context.deadline_ms;
    out.push_back(std::move(record));
  }
  return out;
}

api_error draws_no_tokens(const std::string& model) {
  return {
      400,
      fmt::format("The model \"{}\" gives vectors or scores, no text.", model),
      "invalid_request_error", "model", ""};
}

template <class Request>
api_result<generation>
prepare_one(Request& request, const protocol::model_route& route,
            const model_text& model, const generation_context& context) {
  constexpr bool chat = std::is_same_v<Request, chat_request>;
  if (model.pooled)
    return draws_no_tokens(route.model);
  api::take_defaults(request, model.defaults);
  auto prompts = make_prompts(request, model);
  if (!prompts)
    return prompts.error();
  for (auto& prompt : *prompts)
    if (auto wrong =
            api::fit_to_model(request, chat, prompt.size(), model.max_model_len,
                              model.vocabulary_size))
      return *wrong;
  generation out;
  out.plan = shared_plan(request, route, model, context);
  finish_plan(request, model, context, out.plan);
  out.plan.prompts = std::move(*prompts);
  out.what.application = route.application;
  out.what.model = route.model;
  out.what.choices = make_records(request, out.plan, model, context);
  return out;
}

std::string list_of(const std::vector<const protocol::model_route*>& models) {
  std::string out;
  for (auto* model : models)
    out += (out.empty() ? "" : ", ") + model->model;
  return out;
}

api_error no_such_model(std::string_view name) {
  return {404, fmt::format("The model \"{}\" does not exist here.", name),
          "invalid_request_error", "model", "model_not_found"};
}

} // namespace

api::generation_request& shared_part(any_request& request) {
  return std::visit([](auto& one) -> api::generation_request& { return one; },
                    request);
}

api_result<any_request> parse_request(bool chat, std::string_view body) {
  if (chat) {
    auto request = api::parse_chat_request(body);
    if (!request)
      return request.error();
    return any_request{std::move(*request)};
  }
  auto request = api::parse_completion_request(body);
  if (!request)
    return request.error();
  return any_request{std::move(*request)};
}

api_result<const protocol::model_route*>
find_model(const protocol::routing_table& table, std::string_view route_prefix,
           std::string_view name) {
  std::vector<const protocol::model_route*> candidates;
  for (auto& model : table.models)
    if (model.route_prefix == route_prefix &&
        (name.empty() || model.model == name))
      candidates.push_back(&model);
  if (candidates.empty())
    return no_such_model(name);
  if (candidates.size() > 1)
    return api_error{400,
                     fmt::format("Several models are served here; model must "
                                 "name one of: {}.",
                                 list_of(candidates)),
                     "invalid_request_error", "model", ""};
  return candidates.front();
}

// The reason may name files and nodes: it is for `status`, but where clients
// are what makes a model start.
api_error not_ready(const protocol::model_route& model) {
  if (model.without_replica == protocol::waking::failed)
    return {503,
            fmt::format("The model \"{}\" could not be started ({}).",
                        model.model, model.reason),
            "server_error", "model", "model_not_ready"};
  return {503,
          fmt::format("The model \"{}\" cannot answer now ({}).", model.model,
                      model.status),
          "server_error", "model", "model_not_ready"};
}

bool comes_back(const protocol::model_route& model) {
  return model.status == "UNHEALTHY" || model.status == "DEPLOYING";
}

api_result<generation> prepare(any_request request,
                               const protocol::model_route& route,
                               const std::shared_ptr<const model_text>& model,
                               const generation_context& context) {
  return std::visit(
      [&](auto& one) { return prepare_one(one, route, *model, context); },
      request);
}

} // namespace troupe::router
