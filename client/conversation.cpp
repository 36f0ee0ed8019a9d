#include "client/conversation.hpp"

#include "router/api/json_writer.hpp"

#include <simdjson.h>

namespace troupe::client {

namespace {

void write_message(api::json_writer& out, std::string_view role,
                   std::string_view content) {
  out.begin_object().key("role").text(role).key("content").text(content);
  out.end_object();
}

} // namespace

std::string conversation::request_for(std::string_view said) const {
  api::json_writer out;
  out.begin_object().key("model").text(settings_.model);
  out.key("stream").json("true");
  if (settings_.temperature >= 0)
    out.key("temperature").real(static_cast<float>(settings_.temperature));
  if (settings_.max_tokens > 0)
    out.key("max_tokens").integer(settings_.max_tokens);
  out.key("messages").begin_array();
  if (!settings_.system.empty())
    write_message(out, "system", settings_.system);
  for (const auto& one : turns_) {
    write_message(out, "user", one.said);
    write_message(out, "assistant", one.answered);
  }
  write_message(out, "user", said);
  out.end_array().end_object();
  return out.take();
}

void conversation::keep(std::string said, std::string answered) {
  turns_.push_back({std::move(said), std::move(answered)});
}

void conversation::clear() {
  turns_.clear();
}

std::string text_of_event(std::string_view data, std::string& failure) {
  simdjson::dom::parser parser;
  simdjson::dom::element event;
  std::string_view text;
  if (parser.parse(data.data(), data.size()).get(event) != simdjson::SUCCESS) {
    failure = "an event of the answer cannot be read";
    return {};
  }
  if (event["error"]["message"].get(text) == simdjson::SUCCESS) {
    failure = text;
    return {};
  }
  if (event["choices"].at(0)["delta"]["content"].get(text) != simdjson::SUCCESS)
    return {};
  return std::string{text};
}

} // namespace troupe::client
