#include "router/api/json_body.hpp"
#include "router/api/pooling.hpp"
#include "router/api/request_fields.hpp"

#include <array>
#include <fmt/format.h>

namespace troupe::api {

namespace dom = simdjson::dom;

namespace {

/// Fields that change what is given and are not built, with the one value that
/// changes nothing.
struct fixed_text {
  std::string_view name;
  std::string_view value;
};
struct fixed_flag {
  std::string_view name;
  bool value;
};

constexpr auto fixed_texts = std::to_array<fixed_text>({
    {"embed_dtype", "float32"},
    {"endianness", "native"},
    {"truncation_side", "right"},
});

constexpr auto fixed_flags = std::to_array<fixed_flag>({
    {"normalize", true},
    {"softmax", true},
    {"activation", true},
    {"use_activation", true},
});

void refuse_unbuilt_fields(field_reader& fields) {
  for (const auto& [name, only] : fixed_texts) {
    std::string value{only};
    fields.text(name, name_bytes_max, value);
    if (value != only)
      fields.refuse(name, fmt::format("may only be \"{}\": others are not "
                                      "supported yet.",
                                      only));
  }
  for (const auto& [name, only] : fixed_flags) {
    bool value = only;
    fields.flag(name, value);
    if (value != only)
      fields.refuse(name, "cannot be turned off: not supported yet.");
  }
  for (auto name : {"messages", "chat_template", "mm_processor_kwargs"})
    if (fields.find(name))
      fields.refuse(name, "is not supported yet.");
}

void read_shared(field_reader& fields, pooling_request& request) {
  fields.text("model", name_bytes_max, request.model);
  fields.text("user", name_bytes_max, request.user);
  read_urgency(fields, request.priority, request.timeout_s);
  std::int64_t tokens = 0;
  if (fields.integer("truncate_prompt_tokens", -1, tokens_max, tokens)) {
    if (tokens == 0)
      fields.refuse("truncate_prompt_tokens", "must be -1 or at least 1.");
    request.truncate_prompt_tokens = tokens;
  }
  refuse_unbuilt_fields(fields);
}

/// A document is a text, or an object that holds it as `text`.
std::string read_document(dom::element element, const std::string& path,
                          first_error& error) {
  std::string_view text;
  dom::object object;
  if (element.get(text) && (element.get(object) || object["text"].get(text)))
    error.set(path, path + " must be a string.");
  if (text.size() > text_bytes_max)
    error.set(path, fmt::format("{} must have at most {} bytes.", path,
                                text_bytes_max));
  return std::string{text};
}

/// One text or a list of them.
void read_texts(field_reader& fields, std::string_view name,
                std::vector<std::string>& out) {
  auto element = fields.find(name);
  dom::array list;
  if (!element)
    return fields.refuse(name, "must be a string or a list of strings.");
  if (element->get(list)) {
    out.push_back(read_document(*element, fields.path(name), fields.error()));
    return;
  }
  if (list.size() == 0 || list.size() > prompts_max)
    return fields.refuse(name,
                         fmt::format("must have 1 to {} texts.", prompts_max));
  for (auto item : list) {
    if (fields.error())
      return;
    out.push_back(read_document(item, item_path(fields.path(name), out.size()),
                                fields.error()));
  }
}

/// vLLM's older and newer name of one field.
std::string_view first_there(const field_reader& fields, std::string_view one,
                             std::string_view other) {
  return !fields.find(one) && fields.find(other) ? other : one;
}

void check_pairs(field_reader& fields, std::string_view second,
                 const score_request& request) {
  if (!fields.error() && request.first.size() != 1 &&
      request.first.size() != request.second.size())
    fields.refuse(second, fmt::format("must have as many texts as the other "
                                      "side, which has {}.",
                                      request.first.size()));
}

template <class Request, class Read>
api_result<Request> parse(std::string_view body, Read read) {
  json_body json;
  if (auto wrong = json.parse(body))
    return *wrong;
  first_error error;
  field_reader fields{json.root(), {}, error};
  Request request;
  read(fields, request);
  read_shared(fields, request);
  if (error)
    return *error;
  return request;
}

} // namespace

api_result<embedding_request> parse_embedding_request(std::string_view body) {
  return parse<embedding_request>(
      body, [](field_reader& fields, embedding_request& request) {
        read_prompts(fields, "input", request.inputs);
        read_integer(fields, "dimensions", 1, tokens_max, request.dimensions);
        fields.flag("add_special_tokens", request.add_special_tokens);
        std::string format = "float";
        fields.text("encoding_format", name_bytes_max, format);
        request.base64 = format == "base64";
        if (!request.base64 && format != "float")
          fields.refuse("encoding_format", "must be \"float\" or \"base64\".");
      });
}

api_result<score_request> parse_score_request(std::string_view body) {
  return parse<score_request>(body, [](field_reader& fields,
                                       score_request& request) {
    read_texts(fields, first_there(fields, "text_1", "queries"), request.first);
    auto second = first_there(fields, "text_2", "documents");
    read_texts(fields, second, request.second);
    check_pairs(fields, second, request);
  });
}

api_result<rerank_request> parse_rerank_request(std::string_view body) {
  return parse<rerank_request>(
      body, [](field_reader& fields, rerank_request& request) {
        if (!fields.text("query", text_bytes_max, request.query))
          fields.refuse("query", "must be a string.");
        read_texts(fields, "documents", request.documents);
        read_integer(fields, "top_n", 0, tokens_max, request.top_n);
        fields.flag("return_documents", request.return_documents);
      });
}

} // namespace troupe::api
