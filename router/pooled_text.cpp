#include "router/pooled_text.hpp"

#include "router/api/fit_to_model.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace troupe::router {

namespace {

using api::api_error;
using api::api_result;
using text::frame_place;

/// Each of the texts as ids.
using text_list = std::array<std::vector<token_id>, 2>;

api_error refuse(std::string message, std::string_view param,
                 std::string code = {}) {
  return {400, std::move(message), "invalid_request_error", std::string{param},
          std::move(code)};
}

/// A text of which no more than the room will be left need not be read to its
/// end.
std::string_view readable(const model_text& model, std::string_view text) {
  auto size = std::min(text.size(), model.prompt_bytes_max);
  while (size > 0 && size < text.size() &&
         (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80)
    --size;
  return text.substr(0, size);
}

api_result<std::vector<token_id>> ids_of(const model_text& model,
                                         std::string_view text,
                                         prompt_room room,
                                         std::string_view param) {
  auto read = readable(model, text);
  if (read.size() < text.size() && !room.cut)
    return refuse(fmt::format("The text has {} bytes, which cannot fit this "
                              "model's context of {} tokens.",
                              text.size(), model.max_model_len),
                  param, "context_length_exceeded");
  std::vector<token_id> ids;
  model.tokenizer->encode(read, true, ids);
  return ids;
}

std::vector<frame_place> frame_of(const model_text& model, bool two) {
  const auto& data = model.tokenizer->data();
  auto frame = two ? data.frame_two : data.frame_one;
  if (frame.empty() && !two)
    frame.push_back({});
  if (data.add_bos && data.bos >= 0)
    frame.insert(frame.begin(), {data.bos});
  return frame;
}

bool is_text(const frame_place& place) {
  return place.id < 0;
}

/// Cuts texts that have more than `room` tokens together: the longer one down
/// to what the shorter one leaves, or, if both are too long, both to a half.
void cut(text_list& texts, std::size_t room) {
  auto& [first, second] = texts;
  auto& shorter = first.size() <= second.size() ? first : second;
  auto& longer = first.size() <= second.size() ? second : first;
  if (shorter.size() + longer.size() <= room)
    return;
  auto rest = std::max(room - std::min(room, shorter.size()), shorter.size());
  auto shorter_keeps = shorter.size();
  if (shorter_keeps + rest > room) {
    shorter_keeps = room / 2;
    rest = room - shorter_keeps;
  }
  shorter.resize(shorter_keeps);
  longer.resize(std::min(longer.size(), rest));
}

api_result<pooled_prompt> put_together(std::vector<frame_place> frame,
                                       text_list texts, prompt_room room,
                                       std::string_view param) {
  auto around = static_cast<std::size_t>(
      std::count_if(frame.begin(), frame.end(), std::not_fn(is_text)));
  auto tokens = around + texts[0].size() + texts[1].size();
  if (tokens > room.tokens && (!room.cut || around >= room.tokens))
    return refuse(fmt::format("The text has {} tokens, but at most {} fit.",
                              tokens, room.tokens),
                  param, "context_length_exceeded");
  cut(texts, room.tokens - std::min<std::size_t>(around, room.tokens));
  pooled_prompt out;
  std::optional<std::size_t> second_type, second_text;
  for (const auto& place : frame) {
    if (place.type == 1 && !second_type)
      second_type = out.ids.size();
    if (place.id == frame_place::second_text)
      second_text = out.ids.size();
    if (!is_text(place)) {
      out.ids.push_back(place.id);
      continue;
    }
    auto& text = texts[place.id == frame_place::second_text ? 1 : 0];
    out.ids.insert(out.ids.end(), text.begin(), text.end());
  }
  if (out.ids.empty())
    return refuse(std::string{param} + " must not be empty.", param);
  auto begin = second_type ? second_type : second_text;
  out.second_text = static_cast<std::uint32_t>(begin.value_or(0));
  return out;
}

} // namespace

api_result<prompt_room> room_of(const api::pooling_request& request,
                                const model_text& model) {
  auto asked = request.truncate_prompt_tokens;
  if (asked.value_or(-1) == -1)
    return prompt_room{model.max_model_len, asked.has_value()};
  if (*asked > model.max_model_len)
    return refuse(fmt::format("truncate_prompt_tokens may be at most {}, what "
                              "the model takes.",
                              model.max_model_len),
                  "truncate_prompt_tokens");
  return prompt_room{static_cast<std::uint32_t>(*asked), true};
}

api_result<pooled_prompt> pooled_text(const model_text& model,
                                      const api::prompt& prompt,
                                      bool add_special_tokens, prompt_room room,
                                      std::string_view param) {
  if (auto* ids = std::get_if<std::vector<token_id>>(&prompt)) {
    if (auto wrong = api::check_prompt_ids(*ids, model.vocabulary_size, param))
      return *wrong;
    return put_together({{}}, {*ids, {}}, room, param);
  }
  auto ids = ids_of(model, std::get<std::string>(prompt), room, param);
  if (!ids)
    return ids.error();
  auto frame = add_special_tokens ? frame_of(model, false)
                                  : std::vector<frame_place>{{}};
  return put_together(std::move(frame), {std::move(*ids), {}}, room, param);
}

api_result<pooled_prompt> pooled_pair(const model_text& model,
                                      std::string_view first,
                                      std::string_view second, prompt_room room,
                                      std::string_view param) {
  auto frame = frame_of(model, true);
  if (std::none_of(frame.begin(), frame.end(), is_text))
    return refuse("The model's tokenizer says nothing of two texts.", param);
  auto one = ids_of(model, first, room, param);
  auto other = ids_of(model, second, room, param);
  if (!one || !other)
    return one ? other.error() : one.error();
  return put_together(std::move(frame), {std::move(*one), std::move(*other)},
                      room, param);
}

} // namespace troupe::router
