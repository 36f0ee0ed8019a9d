#include "router/pooling.hpp"

#include "router/pooled_text.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe::router {

namespace {

using api::api_error;
using api::api_result;
using kind = text::pooled_output::kind;
using prompt_list = std::vector<pooled_prompt>;

api_error refuse(std::string message, std::string_view param) {
  return {400, std::move(message), "invalid_request_error", std::string{param},
          ""};
}

/// What is wrong with the model for this request, if anything.
std::optional<api_error> wrong_model(const protocol::model_route& route,
                                     const model_text& model, kind wanted) {
  if (model.pooled && model.pooled->what == wanted)
    return std::nullopt;
  return refuse(
      fmt::format("The model \"{}\" gives no {}.", route.model,
                  wanted == kind::score ? "scores of two texts" : "embeddings"),
      "model");
}

std::optional<api_error> wrong_dimensions(std::uint32_t asked,
                                          const text::pooled_output& has) {
  auto& lengths = has.lengths;
  if (asked == 0 || asked == has.size)
    return std::nullopt;
  if (!has.may_be_cut)
    return refuse(fmt::format("dimensions: the model's embeddings have {} "
                              "numbers and cannot be cut.",
                              has.size),
                  "dimensions");
  if (asked > has.size)
    return refuse(fmt::format("dimensions may be at most {}.", has.size),
                  "dimensions");
  if (!lengths.empty() &&
      std::find(lengths.begin(), lengths.end(), asked) == lengths.end())
    return refuse(
        fmt::format("dimensions must be one of: {}.", fmt::join(lengths, ", ")),
        "dimensions");
  return std::nullopt;
}

api_result<prompt_list> prompts_of(const api::embedding_request& request,
                                   const model_text& model, prompt_room room) {
  prompt_list out;
  for (std::size_t i = 0; i < request.inputs.size(); ++i) {
    auto made = pooled_text(
        model, request.inputs[i], request.add_special_tokens, room,
        request.inputs.size() == 1 ? "input" : fmt::format("input[{}]", i));
    if (!made)
      return made.error();
    out.push_back(std::move(*made));
  }
  return out;
}

api_result<prompt_list> pairs_of(const std::vector<std::string>& first,
                                 const std::vector<std::string>& second,
                                 const model_text& model, prompt_room room,
                                 std::string_view param) {
  prompt_list out;
  for (std::size_t i = 0; i < second.size(); ++i) {
    auto made = pooled_pair(model, first[first.size() == 1 ? 0 : i], second[i],
                            room, fmt::format("{}[{}]", param, i));
    if (!made)
      return made.error();
    out.push_back(std::move(*made));
  }
  return out;
}

api_result<prompt_list> prompts_of(const api::score_request& request,
                                   const model_text& model, prompt_room room) {
  return pairs_of(request.first, request.second, model, room, "text_2");
}

api_result<prompt_list> prompts_of(const api::rerank_request& request,
                                   const model_text& model, prompt_room room) {
  return pairs_of({request.query}, request.documents, model, room, "documents");
}

// What each request makes of the plan; an error if the model has it not.

std::optional<api_error> finish_plan(api::embedding_request& request,
                                     const model_text& model,
                                     pooled_plan& plan) {
  plan.head.id = "embd-" + plan.head.id;
  plan.what = embeddings_plan{request.dimensions, request.base64};
  return wrong_dimensions(request.dimensions, *model.pooled);
}

std::optional<api_error> finish_plan(api::score_request&, const model_text&,
                                     pooled_plan& plan) {
  plan.head.id = "score-" + plan.head.id;
  plan.what = scores_plan{};
  return std::nullopt;
}

std::optional<api_error> finish_plan(api::rerank_request& request,
                                     const model_text&, pooled_plan& plan) {
  plan.head.id = "rerank-" + plan.head.id;
  ranking_plan ranking;
  ranking.count_max = request.top_n;
  if (request.return_documents)
    ranking.documents = std::move(request.documents);
  plan.what = std::move(ranking);
  return std::nullopt;
}

constexpr kind kind_of(const api::embedding_request&) {
  return kind::embedding;
}
constexpr kind kind_of(const api::score_request&) {
  return kind::score;
}
constexpr kind kind_of(const api::rerank_request&) {
  return kind::score;
}

template <class Request>
api_result<pooled_job>
prepare_one(Request& request, const protocol::model_route& route,
            const model_text& model, const generation_context& context) {
  if (auto wrong = wrong_model(route, model, kind_of(request)))
    return *wrong;
  auto room = room_of(request, model);
  if (!room)
    return room.error();
  auto prompts = prompts_of(request, model, *room);
  if (!prompts)
    return prompts.error();
  pooled_job out;
  out.plan.head.id = context.request_id;
  out.plan.head.model = route.model;
  out.plan.head.created = context.created;
  out.plan.size = model.pooled->size;
  if (auto wrong = finish_plan(request, model, out.plan))
    return *wrong;
  out.what.application = route.application;
  out.what.model = route.model;
  for (auto& prompt : *prompts) {
    out.plan.prompt_tokens.push_back(
        static_cast<std::uint32_t>(prompt.ids.size()));
    protocol::request_record record;
    record.request_id = context.request_id;
    record.model = route.model;
    record.prompt = std::move(prompt.ids);
    record.second_text = prompt.second_text;
    record.params.max_tokens = 0;
    record.params.choice = static_cast<std::uint32_t>(out.what.choices.size());
    record.deadline_ms = context.deadline_ms;
    out.what.choices.push_back(std::move(record));
  }
  return out;
}

template <class Request>
api_result<pooled_request> as_pooled(api_result<Request> parsed) {
  if (!parsed)
    return parsed.error();
  return pooled_request{std::move(*parsed)};
}

} // namespace

api::pooling_request& shared_part(pooled_request& request) {
  return std::visit([](auto& one) -> api::pooling_request& { return one; },
                    request);
}

api_result<pooled_request> parse_pooled_request(pooled_endpoint endpoint,
                                                std::string_view body) {
  switch (endpoint) {
  case pooled_endpoint::score:
    return as_pooled(api::parse_score_request(body));
  case pooled_endpoint::rerank:
    return as_pooled(api::parse_rerank_request(body));
  default:
    return as_pooled(api::parse_embedding_request(body));
  }
}

api_result<pooled_job> prepare(pooled_request request,
                               const protocol::model_route& route,
                               const model_text& model,
                               const generation_context& context) {
  return std::visit(
      [&](auto& one) { return prepare_one(one, route, model, context); },
      request);
}

} // namespace troupe::router
