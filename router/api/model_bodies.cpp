#include "router/api/json_writer.hpp"
#include "router/api/openai.hpp"

namespace troupe::api {

namespace {

void write_model(json_writer& json, const model_entry& model) {
  json.begin_object();
  json.key("id").text(model.id);
  json.key("object").text("model");
  json.key("created").natural(model.created);
  json.key("owned_by").text("organization-owner");
  json.key("permission").begin_array().end_array();
  json.key("max_model_len");
  if (model.max_model_len > 0)
    json.natural(model.max_model_len);
  else
    json.null();
  json.key("task").text_or_null(model.task);
  json.end_object();
}

} // namespace

std::string models_body(const std::vector<model_entry>& models) {
  json_writer json;
  json.begin_object().key("object").text("list").key("data").begin_array();
  for (const auto& model : models)
    write_model(json, model);
  return json.end_array().end_object().take();
}

std::string model_body(const model_entry& model) {
  json_writer json;
  write_model(json, model);
  return json.take();
}

} // namespace troupe::api
