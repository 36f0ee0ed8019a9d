#pragma once

#include "actors/protocol/routing_table.hpp"
#include "router/answer.hpp"
#include "router/api/openai.hpp"
#include "router/model_text.hpp"
#include "router/request_table.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

/// From a parsed request to the records of its choices and the plan of its
/// answer. Pure but for the seed that is passed in.
namespace troupe::router {

using any_request = std::variant<api::chat_request, api::completion_request>;

api::generation_request& shared_part(any_request&);

api::api_result<any_request> parse_request(bool chat, std::string_view body);

/// The model of this name among those of an application's route prefix; without
/// a name the only one. 404 for an unknown one, 400 if there is a choice.
api::api_result<const protocol::model_route*>
find_model(const protocol::routing_table&, std::string_view route_prefix,
           std::string_view name);

/// For a model that nobody can be asked for now: 503 with its status.
api::api_error not_ready(const protocol::model_route&);

/// True for a model whose replica was lost or is being replaced: the next one
/// is worth waiting for.
bool comes_back(const protocol::model_route&);

struct generation {
  submission what;
  answer_plan plan;
};

/// What does not depend on the request itself.
struct generation_context {
  std::string request_id;
  std::uint64_t created = 0;     ///< seconds since 1970
  std::uint64_t seed = 0;        ///< for a request without one
  std::uint64_t turn = 0;        ///< its number among those of its model
  std::uint64_t deadline_ms = 0; ///< time left; 0 = no limit
};

/// Makes the prompts' ids, checks them against the model and lays the choices
/// out: choice = prompt index x n + i.
api::api_result<generation> prepare(any_request, const protocol::model_route&,
                                    const std::shared_ptr<const model_text>&,
                                    const generation_context&);

} // namespace troupe::router
