#pragma once

#include "actors/protocol/routing_table.hpp"
#include "router/api/pooling.hpp"
#include "router/generation.hpp"
#include "router/model_text.hpp"
#include "router/pooled_answer.hpp"
#include "router/request_table.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <variant>

/// From a parsed request for vectors or scores to the records of its choices
/// and the plan of its answer: one choice per text or pair. Pure.
namespace troupe::router {

using pooled_request = std::variant<api::embedding_request, api::score_request,
                                    api::rerank_request>;

enum class pooled_endpoint : std::uint8_t { embeddings, score, rerank };

api::pooling_request& shared_part(pooled_request&);

api::api_result<pooled_request> parse_pooled_request(pooled_endpoint,
                                                     std::string_view body);

struct pooled_job {
  submission what;
  pooled_plan plan;
};

/// Of the context, id, time and deadline count. Errors: a model that gives
/// something else, texts that are too long, dimensions that it has not.
api::api_result<pooled_job> prepare(pooled_request,
                                    const protocol::model_route&,
                                    const model_text&,
                                    const generation_context&);

} // namespace troupe::router
