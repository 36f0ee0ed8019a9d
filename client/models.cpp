#include "client/models.hpp"

#include "client/exchange.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <simdjson.h>

#include <vector>

namespace troupe::client {

namespace {

/// Another service than Troupe may say nothing of it.
bool generates_text(simdjson::dom::element model) {
  std::string_view task;
  return model["task"].get(task) != simdjson::SUCCESS || task == "generate";
}

/// Those that generate text.
result<std::vector<std::string>> list_models(const service_url& where,
                                             const std::string& api_key) {
  auto got = exchange_now(where, {"GET", "/v1/models", "", api_key});
  if (!got)
    return got.error();
  if (got->status != 200)
    return error{errc::unavailable,
                 fmt::format("{}: {}", where.authority(), reason_of(*got))};
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  simdjson::dom::array data;
  if (parser.parse(got->body).get(all) != simdjson::SUCCESS ||
      all["data"].get(data) != simdjson::SUCCESS)
    return error{errc::corrupt,
                 where.authority() + ": its list of models cannot be read"};
  std::vector<std::string> out;
  for (auto one : data)
    if (std::string_view id;
        one["id"].get(id) == simdjson::SUCCESS && generates_text(one))
      out.emplace_back(id);
  return out;
}

} // namespace

result<std::string> choose_model(const service_url& where,
                                 const std::string& api_key,
                                 const std::string& wanted) {
  if (!wanted.empty())
    return wanted;
  auto models = list_models(where, api_key);
  if (!models)
    return models.error();
  if (models->size() == 1)
    return models->front();
  if (models->empty())
    return error{errc::not_found,
                 where.authority() + " serves no model that generates text"};
  return error{errc::invalid_argument,
               fmt::format("{} serves several models, choose with --model: {}",
                           where.authority(), fmt::join(*models, ", "))};
}

} // namespace troupe::client
