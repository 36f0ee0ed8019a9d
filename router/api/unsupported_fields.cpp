#include "router/api/request_fields.hpp"

#include <array>

namespace troupe::api {

namespace dom = simdjson::dom;

namespace {

/// The value, besides null, that asks for nothing.
enum class neutral { nothing, list, object, text, flag };

struct unsupported_field {
  std::string_view name;
  neutral value;
};

constexpr auto unsupported = std::to_array<unsupported_field>({
    {"functions", neutral::list},
    {"audio", neutral::nothing},
    {"web_search_options", neutral::nothing},
    {"suffix", neutral::text},
    {"structured_outputs", neutral::object},
    {"guided_json", neutral::nothing},
    {"guided_regex", neutral::text},
    {"guided_choice", neutral::list},
    {"guided_grammar", neutral::text},
    {"structural_tag", neutral::text},
    {"prompt_logprobs", neutral::nothing},
    {"prompt_embeds", neutral::nothing},
    {"truncate_prompt_tokens", neutral::nothing},
    {"allowed_token_ids", neutral::list},
    {"bad_words", neutral::list},
    {"logits_processors", neutral::list},
    {"use_beam_search", neutral::flag},
    {"mm_processor_kwargs", neutral::object},
    {"kv_transfer_params", neutral::object},
    {"vllm_xargs", neutral::object},
    {"cache_salt", neutral::text},
    {"return_tokens_as_token_ids", neutral::flag},
    {"repetition_detection", neutral::nothing},
    {"thinking_token_budget", neutral::nothing},
});

bool is_neutral(dom::element element, neutral kind) {
  dom::array list;
  dom::object object;
  std::string_view text;
  bool flag = false;
  switch (kind) {
  case neutral::list:
    return !element.get(list) && list.size() == 0;
  case neutral::object:
    return !element.get(object) && object.size() == 0;
  case neutral::text:
    return !element.get(text) && text.empty();
  case neutral::flag:
    return !element.get(flag) && !flag;
  default:
    return false;
  }
}

bool is_text(dom::element element, std::string_view wanted) {
  std::string_view text;
  return !element.get(text) && text == wanted;
}

constexpr std::string_view not_yet = "is not supported yet.";

void refuse(field_reader& fields, const unsupported_field& field,
            std::string_view why) {
  auto element = fields.find(field.name);
  if (element && !is_neutral(*element, field.value))
    fields.refuse(field.name, why);
}

void check_response_format(field_reader& fields) {
  auto format = fields.object("response_format");
  if (!format)
    return;
  field_reader reader{*format, "response_format", fields.error()};
  auto type = reader.find("type");
  if (!type || !is_text(*type, "text"))
    reader.refuse("type", "must be \"text\": other response formats are not "
                          "supported yet.");
}

/// Tools that must not be called are shown to the model, as in vLLM.
void check_tools(field_reader& fields) {
  auto choice = fields.find("tool_choice");
  auto tools = fields.list("tools");
  bool none = choice && is_text(*choice, "none");
  if (tools && tools->size() > 0 && !none)
    fields.refuse("tools", "are not supported yet, unless tool_choice is "
                           "\"none\".");
  if (choice && !none)
    fields.refuse("tool_choice", "must be \"none\": tools are not supported "
                                 "yet.");
  auto call = fields.find("function_call");
  if (call && !is_text(*call, "none"))
    fields.refuse("function_call", "must be \"none\": functions are not "
                                   "supported yet.");
}

void check_modalities(field_reader& fields) {
  auto list = fields.list("modalities");
  if (!list)
    return;
  for (auto item : *list)
    if (!is_text(item, "text"))
      fields.refuse("modalities", "must be [\"text\"]: other modalities are "
                                  "not supported yet.");
}

} // namespace

void refuse_chat_fields(field_reader& fields) {
  constexpr std::string_view why = "belongs to a chat.";
  refuse(fields, {"chat_template", neutral::text}, why);
  refuse(fields, {"chat_template_kwargs", neutral::object}, why);
  refuse(fields, {"documents", neutral::list}, why);
}

void refuse_unsupported_fields(field_reader& fields) {
  for (const auto& field : unsupported)
    refuse(fields, field, not_yet);
  check_response_format(fields);
  check_tools(fields);
  check_modalities(fields);
}

void check_inert_fields(field_reader& fields) {
  std::string text;
  for (auto name :
       {"service_tier", "reasoning_effort", "verbosity", "prompt_cache_key",
        "prompt_cache_retention", "safety_identifier"})
    fields.text(name, name_bytes_max, text);
  bool flag = false;
  for (auto name : {"store", "parallel_tool_calls"})
    fields.flag(name, flag);
  for (auto name : {"metadata", "prediction"})
    fields.object(name);
}

} // namespace troupe::api
