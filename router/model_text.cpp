#include "router/model_text.hpp"

#include "engine/text/detokenizer.hpp"
#include "router/api/fit_to_model.hpp"
#include "router/api/template_fields.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <random>

namespace troupe::router {

namespace {

using api::api_error;
using api::api_result;
using text::value;

// What a chat is cut at to go on with its last message: no text of a client is
// likely to hold it, and it is drawn anew for each process.
const std::string& end_mark() {
  static const std::string mark = [] {
    std::random_device random;
    std::string digits;
    for (int i = 0; i < 24; ++i)
      digits += "0123456789abcdef"[random() % 16];
    return "\xEE\x80\x80" + digits + "\xEE\x80\x81"; // private-use characters
  }();
  return mark;
}

value* member(value& of, std::string_view key) {
  auto* map = std::get_if<value::map>(&of.data);
  if (map == nullptr)
    return nullptr;
  for (auto& [name, item] : *map)
    if (name == key)
      return &item;
  return nullptr;
}

/// The last string of a message's content: itself, or its last text part.
text::text_pieces* last_text(value& message) {
  auto* content = member(message, "content");
  if (content == nullptr)
    return nullptr;
  if (auto* parts = std::get_if<value::list>(&content->data)) {
    if (parts->empty())
      return nullptr;
    content = member(parts->back(), "text");
  }
  return content == nullptr ? nullptr
                            : std::get_if<text::text_pieces>(&content->data);
}

api_error cannot_continue() {
  return {400,
          "continue_final_message needs a last message with text that the "
          "model's chat template shows.",
          "invalid_request_error", "continue_final_message", ""};
}

bool mark_end(value& messages) {
  auto* list = std::get_if<value::list>(&messages.data);
  if (list == nullptr || list->empty())
    return false;
  auto* text = last_text(list->back());
  if (text == nullptr)
    return false;
  text->push_back({end_mark(), true});
  return true;
}

bool cut_at_mark(text::text_pieces& pieces) {
  for (auto i = pieces.size(); i-- > 0;) {
    auto at = pieces[i].content ? pieces[i].text.rfind(end_mark())
                                : std::string::npos;
    if (at == std::string::npos)
      continue;
    pieces.resize(i + 1);
    pieces.back().text.resize(at);
    return true;
  }
  return false;
}

value special_token(const text::tokenizer& tokenizer, token_id id) {
  auto& vocabulary = tokenizer.data().vocabulary;
  auto known = id >= 0 && static_cast<std::size_t>(id) < vocabulary.size();
  return value::trusted(known ? vocabulary[static_cast<std::size_t>(id)] : "");
}

std::int64_t seconds_now() {
  using namespace std::chrono;
  return duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
}

/// What the template sees: tools and documents are none where there are none,
/// as templates expect. A request's arguments take the places of the
/// operator's; neither can be one of the others.
value::map template_globals(const model_text& model,
                            api::chat_request& request) {
  auto& data = model.tokenizer->data();
  value::map out{
      {"messages", std::move(request.messages)},
      {"add_generation_prompt", value{request.add_generation_prompt}},
      {"bos_token", special_token(*model.tokenizer, data.bos)},
      {"eos_token", special_token(*model.tokenizer, data.eos)},
      {"unk_token", special_token(*model.tokenizer, data.unknown)},
      {"tools", value{}},
      {"documents", value{}},
      {"now_seconds", value{seconds_now()}},
  };
  auto add = [&](const std::string& name, const value& argument) {
    auto is_it = [&](const auto& known) { return known.first == name; };
    auto at = std::find_if(out.begin(), out.end(), is_it);
    if (at == out.end())
      out.emplace_back(name, argument);
    else
      at->second = argument;
  };
  for (const auto& [name, argument] : model.template_kwargs)
    add(name, argument);
  for (const auto& [name, argument] : request.template_kwargs)
    add(name, argument);
  if (request.documents)
    add("documents", *request.documents);
  // Those who ask for none give an empty list; templates ask for none.
  if (request.tools && !std::get<value::list>(request.tools->data).empty())
    add("tools", *request.tools);
  return out;
}

/// The template that renders a chat, and whether it goes through parts.
struct chosen_template {
  std::shared_ptr<const text::chat_template> chat;
  bool takes_parts = false;
};

api_error template_error(std::string message, std::string_view param) {
  return {400, std::move(message), "invalid_request_error", std::string{param},
          ""};
}

api_result<chosen_template> choose_template(const model_text& model,
                                            const api::chat_request& request) {
  constexpr std::string_view field = "chat_template";
  auto& own = request.chat_template;
  if (own.empty() && !model.chat)
    return template_error("The model has no chat template.", "messages");
  if (own.empty())
    return chosen_template{model.chat, model.takes_parts};
  if (!model.trusts_request_template)
    return template_error("chat_template is taken only where the model's "
                          "engine_kwargs say trust_request_chat_template.",
                          field);
  auto chat = text::chat_template::compile(own);
  if (!chat)
    return template_error(chat.error().message, field);
  return chosen_template{std::move(*chat), loops_over_content(own)};
}

bool is_path_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         std::string_view{"_.[]'\""}.find(c) != std::string_view::npos;
}

/// Bytes of the longest token.
std::size_t longest_token(const text::tokenizer& tokenizer) {
  std::size_t out = 1;
  auto count = static_cast<token_id>(tokenizer.data().vocabulary.size());
  for (token_id id = 0; id < count; ++id)
    out = std::max(out, tokenizer.bytes_of(id).size());
  return out;
}

api_error too_many_bytes(const model_text& model, std::size_t bytes,
                         std::string_view param) {
  return api_error{400,
                   fmt::format("The prompt has {} bytes, which cannot fit this "
                               "model's context of {} tokens.",
                               bytes, model.max_model_len),
                   "invalid_request_error", std::string{param},
                   "context_length_exceeded"};
}

/// With what the tokenizer puts around one text, if `framed`.
void encode_prompt(const text::tokenizer& tokenizer, std::string_view prompt,
                   bool framed, std::vector<token_id>& out) {
  auto& data = tokenizer.data();
  if (framed && data.add_bos && data.bos >= 0)
    out.push_back(data.bos);
  if (!framed || data.frame_one.empty())
    return tokenizer.encode(prompt, true, out);
  for (const auto& place : data.frame_one)
    if (place.id == text::frame_place::first_text)
      tokenizer.encode(prompt, true, out);
    else if (place.id >= 0)
      out.push_back(place.id);
}

} // namespace

result<std::shared_ptr<const model_text>>
model_text::make(std::string_view bytes) {
  auto card = text::decode_model_card(
      {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
  if (!card)
    return card.error();
  auto out = std::make_shared<model_text>();
  out->max_model_len = card->max_model_len;
  out->vocabulary_size = card->vocabulary_size;
  out->defaults = card->defaults;
  out->pooled = card->pooled;
  out->trusts_request_template = card->trust_request_template;
  auto kwargs = api::read_operator_kwargs(card->template_kwargs);
  if (!kwargs)
    return kwargs.error();
  out->template_kwargs = std::move(*kwargs);
  auto tokenizer = text::tokenizer::make(std::move(card->tokenizer));
  if (!tokenizer)
    return tokenizer.error();
  out->tokenizer = std::move(*tokenizer);
  // NFC can make a text shorter, by a factor of three at the most.
  constexpr std::size_t composed_max = 3;
  out->prompt_bytes_max =
      composed_max * out->max_model_len * longest_token(*out->tokenizer);
  if (card->chat_template.empty())
    return std::shared_ptr<const model_text>{std::move(out)};
  auto chat = text::chat_template::compile(card->chat_template);
  if (!chat)
    return chat.error();
  out->chat = std::move(*chat);
  out->takes_parts = loops_over_content(card->chat_template);
  return std::shared_ptr<const model_text>{std::move(out)};
}

// Looks for "in <path>content": "for part in message['content']".
bool loops_over_content(std::string_view source) {
  for (auto at = source.find("content"); at != std::string_view::npos;
       at = source.find("content", at + 1)) {
    auto begin = at;
    while (begin > 0 && is_path_character(source[begin - 1]))
      --begin;
    auto word = begin;
    while (word > 0 && source[word - 1] == ' ')
      --word;
    if (word == begin || word < 3 || source.substr(word - 3, 3) != " in")
      continue;
    auto tag = source.rfind("{%", word);
    if (tag == std::string_view::npos)
      continue;
    auto head = source.substr(tag + 2, word - tag - 2);
    auto first = head.find_first_not_of("- +");
    if (first != std::string_view::npos && head.substr(first, 4) == "for ")
      return true;
  }
  return false;
}

api_result<std::vector<token_id>> chat_prompt(const model_text& model,
                                              api::chat_request& request) {
  auto chosen = choose_template(model, request);
  if (!chosen)
    return chosen.error();
  if (!chosen->takes_parts)
    api::join_text_parts(request.messages);
  if (request.continue_final_message && !mark_end(request.messages))
    return cannot_continue();
  auto pieces = chosen->chat->render(template_globals(model, request));
  if (!pieces)
    return api_error{400, pieces.error().message, "invalid_request_error",
                     "messages", ""};
  if (request.continue_final_message && !cut_at_mark(*pieces))
    return cannot_continue();
  std::size_t bytes = 0;
  for (const auto& piece : *pieces)
    bytes += piece.text.size();
  if (bytes > model.prompt_bytes_max)
    return too_many_bytes(model, bytes, "messages");
  std::vector<token_id> ids;
  model.tokenizer->encode(*pieces, ids);
  if (ids.empty())
    return api_error{400, "The chat template made an empty prompt of messages.",
                     "invalid_request_error", "messages", ""};
  return ids;
}

api_result<std::vector<token_id>> raw_prompt(const model_text& model,
                                             const api::prompt& prompt,
                                             bool add_special_tokens,
                                             std::string_view param) {
  std::vector<token_id> ids;
  if (auto* given = std::get_if<std::vector<token_id>>(&prompt)) {
    if (auto wrong =
            api::check_prompt_ids(*given, model.vocabulary_size, param))
      return *wrong;
    ids = *given;
  } else {
    auto bytes = std::get<std::string>(prompt).size();
    if (bytes > model.prompt_bytes_max)
      return too_many_bytes(model, bytes, param);
    encode_prompt(*model.tokenizer, std::get<std::string>(prompt),
                  add_special_tokens, ids);
  }
  if (ids.empty())
    return api_error{400, std::string{param} + " must not be empty.",
                     "invalid_request_error", std::string{param}, ""};
  return ids;
}

std::string shown_prompt(const model_text& model, const api::prompt& prompt) {
  if (auto* text = std::get_if<std::string>(&prompt))
    return *text;
  std::string out;
  text::detokenizer detokenizer{model.tokenizer, false};
  for (auto id : std::get<std::vector<token_id>>(prompt))
    detokenizer.push(id, out);
  detokenizer.finish(out);
  return out;
}

} // namespace troupe::router
