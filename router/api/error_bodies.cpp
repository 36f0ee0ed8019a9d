#include "router/api/json_writer.hpp"
#include "router/api/openai.hpp"

#include <stdexcept>

namespace troupe::api {

namespace {

void write_error(json_writer& json, const api_error& error) {
  json.begin_object().key("error").begin_object();
  json.key("message").text(error.message);
  json.key("type").text(error.type);
  json.key("param").text_or_null(error.param);
  json.key("code").text_or_null(error.code);
  json.end_object().end_object();
}

} // namespace

std::string error_frame(const api_error& error) {
  json_writer json{"data: "};
  write_error(json, error);
  return json.take("\n\n");
}

std::string error_body(const api_error& error) {
  json_writer json;
  write_error(json, error);
  return json.take();
}

void throw_exception_from_error(const api_error& error,
                                const boost::source_location&) {
  throw std::runtime_error(error.message);
}

} // namespace troupe::api
