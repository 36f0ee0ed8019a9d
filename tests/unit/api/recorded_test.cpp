// Requests and answers recorded from Ray Serve LLM: ours must agree.
// recorded_requests.jsonl holds our bodies with its status;
// recorded_answers.jsonl its answers, less the keys that OpenAI's API
// description does not have.

#include "request_bodies.hpp"

#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <simdjson.h>

using namespace troupe;
using namespace troupe::api;

namespace {

namespace dom = simdjson::dom;

const std::string folder = TROUPE_SOURCE_DIR "/tests/unit/api/";

std::vector<std::string> lines(const std::string& name) {
  std::ifstream file{folder + name};
  std::vector<std::string> all;
  for (std::string line; std::getline(file, line);)
    all.push_back(line);
  return all;
}

std::string string_of(dom::element element) {
  return std::string{std::string_view{element}};
}

/// Statuses that differ from the recorded one, each on purpose.
const std::map<std::string, int> ours = {
    {"chat.n2_greedy", 200},       // equal choices
    {"http.duplicate_keys", 400},  // named
    {"http.bad_utf8_escape", 400}, // not a server error
    {"chat.model_unknown", 200},   // the router knows the models,
    {"chat.model_unknown_stream", 200},
    {"comp.model_unknown", 200},
    {"chat.model_adapter", 200},
    {"chat.logit_bias_bad_id", 200}, // and these need the model's card
    {"chat.max_tokens_huge", 200},
    {"comp.token_id_too_big", 200},
    {"comp.prompt_plus_max_too_long", 200},
    {"chat.json_schema", 400}, // not supported yet
    {"chat.json_schema_stream", 400},
    {"chat.json_object", 400},
    {"chat.structured_regex", 400},
    {"chat.structured_choice", 400},
    {"comp.prompt_logprobs", 400},
    {"comp.best_of", 400},
};

template <class Request>
int status(const api_result<Request>& parsed) {
  return parsed ? 200 : parsed.error().status;
}

int our_status(const std::string& endpoint, const std::string& body) {
  return endpoint == "chat" ? status(parse_chat_request(body))
                            : status(parse_completion_request(body));
}

/// Every key of the recorded value is in ours with the same value. Where Ray
/// says null, ours may say more. Numbers are compared as floats.
void check_includes(dom::element recorded, dom::element mine,
                    const std::string& path) {
  INFO(path);
  if (dom::object object; !recorded.get(object)) {
    REQUIRE(mine.is_object());
    for (auto [key, value] : object) {
      dom::element found;
      INFO("key " << key);
      REQUIRE_FALSE(mine.at_key(key).get(found));
      check_includes(value, found, path + "." + std::string{key});
    }
  } else if (dom::array list; !recorded.get(list)) {
    REQUIRE(mine.is_array());
    REQUIRE(dom::array{mine}.size() == list.size());
    std::size_t i = 0;
    for (auto item : list) {
      check_includes(item, mine.at(i), path + "[" + std::to_string(i) + "]");
      ++i;
    }
  } else if (recorded.is_number()) {
    REQUIRE(mine.is_number());
    CHECK(static_cast<float>(double{recorded}) ==
          static_cast<float>(double{mine}));
  } else if (!recorded.is_null()) {
    CHECK(simdjson::to_string(mine) == simdjson::to_string(recorded));
  }
}

std::uint64_t natural(dom::element element) {
  return std::uint64_t{element};
}

std::vector<token_id> ids(simdjson::simdjson_result<dom::element> element) {
  std::vector<token_id> all;
  dom::array list;
  if (element.get(list))
    return all;
  for (auto id : list)
    all.push_back(static_cast<token_id>(std::int64_t{id}));
  return all;
}

std::string bytes_of(dom::element candidate) {
  std::string bytes;
  for (auto byte : dom::array{candidate["bytes"]})
    bytes += static_cast<char>(natural(byte));
  return bytes;
}

std::vector<shown_token> chat_tokens(dom::element logprobs) {
  std::vector<shown_token> tokens;
  for (auto item : dom::array{logprobs["content"]}) {
    shown_token token;
    token.bytes = bytes_of(item);
    token.logprob = static_cast<float>(double{item["logprob"]});
    for (auto other : dom::array{item["top_logprobs"]})
      token.top.push_back(
          {bytes_of(other), static_cast<float>(double{other["logprob"]})});
    tokens.push_back(token);
  }
  return tokens;
}

std::vector<shown_token> completion_tokens(dom::element logprobs) {
  std::vector<shown_token> tokens;
  std::size_t i = 0;
  for (auto item : dom::array{logprobs["tokens"]}) {
    shown_token token;
    token.bytes = string_of(item);
    token.text_offset = natural(logprobs["text_offset"].at(i));
    if (double logprob; !logprobs["token_logprobs"].at(i).get(logprob))
      token.logprob = static_cast<float>(logprob);
    if (dom::object top; !logprobs["top_logprobs"].at(i).get(top))
      for (auto [key, value] : top)
        token.top.push_back(
            {std::string{key}, static_cast<float>(double{value})});
    tokens.push_back(token);
    ++i;
  }
  return tokens;
}

void read_logprobs(dom::element choice, bool chat, choice_piece& piece) {
  dom::element logprobs = choice["logprobs"];
  if (logprobs.is_null())
    return;
  piece.with_logprobs = true;
  piece.tokens = chat ? chat_tokens(logprobs) : completion_tokens(logprobs);
}

void read_stop_reason(dom::element choice, choice_piece& piece) {
  dom::element reason;
  if (choice.at_key("stop_reason").get(reason))
    return;
  if (reason.is_string())
    piece.stop_reason = string_of(reason);
  else
    piece.stop_reason = static_cast<token_id>(std::int64_t{reason});
}

std::string text_of(dom::element choice) {
  std::string_view text;
  if (choice.at_key("text").get(text))
    for (auto holder : {"message", "delta"})
      if (!choice[holder]["content"].get(text))
        break;
  return std::string{text};
}

choice_piece piece_of(dom::element choice, bool chat) {
  choice_piece piece;
  piece.index = static_cast<std::uint32_t>(natural(choice["index"]));
  piece.text = text_of(choice);
  if (std::string_view reason; !choice["finish_reason"].get(reason))
    piece.finish_reason = reason;
  read_stop_reason(choice, piece);
  read_logprobs(choice, chat, piece);
  piece.token_ids = ids(choice["token_ids"]);
  return piece;
}

answer_head head_of(dom::element answer) {
  answer_head head;
  head.id = string_of(answer["id"]);
  head.model = string_of(answer["model"]);
  head.created = natural(answer["created"]);
  if (std::string_view print; !answer["system_fingerprint"].get(print))
    head.system_fingerprint = print;
  head.return_token_ids = !answer["prompt_token_ids"].error();
  return head;
}

std::optional<usage> usage_of(dom::element answer) {
  dom::element counts;
  if (answer["usage"].get(counts))
    return std::nullopt;
  return usage{natural(counts["prompt_tokens"]),
               natural(counts["completion_tokens"]), 0};
}

std::string our_body(dom::element recorded, bool chat) {
  auto head = head_of(recorded);
  std::vector<choice_piece> pieces;
  for (auto choice : dom::array{recorded["choices"]})
    pieces.push_back(piece_of(choice, chat));
  pieces.front().prompt_token_ids = ids(recorded["prompt_token_ids"]);
  return chat ? chat_body(head, pieces, *usage_of(recorded))
              : completion_body(head, pieces, *usage_of(recorded));
}

std::string our_frame(dom::element recorded, bool chat) {
  auto head = head_of(recorded);
  auto counts = usage_of(recorded);
  dom::array choices = recorded["choices"];
  if (choices.size() == 0)
    return usage_frame(head, chat, *counts);
  auto piece = piece_of(choices.at(0), chat);
  if (!chat)
    return completion_frame(head, piece, counts);
  if (!choices.at(0)["delta"]["role"].error())
    return chat_role_frame(head, piece.index, {}, counts);
  return chat_frame(head, piece, counts);
}

/// The JSON of an SSE frame, which must be one.
std::string json_of(const std::string& frame) {
  REQUIRE(frame.starts_with("data: "));
  REQUIRE(frame.ends_with("\n\n"));
  REQUIRE(frame.find('\n') == frame.size() - 2);
  return frame.substr(6);
}

} // namespace

TEST_CASE("recorded requests are taken and refused as Ray Serve LLM does") {
  dom::parser parser;
  auto all = lines("recorded_requests.jsonl");
  REQUIRE(all.size() > 100);
  for (const auto& line : all) {
    dom::element request = parser.parse(line);
    auto id = string_of(request["id"]);
    auto expected = static_cast<int>(std::int64_t{request["status"]});
    if (auto exception = ours.find(id); exception != ours.end())
      expected = exception->second;
    CAPTURE(id);
    CHECK(our_status(string_of(request["endpoint"]),
                     string_of(request["body"])) == expected);
  }
}

TEST_CASE("answers have every key and value of the recorded ones") {
  dom::parser theirs, ours;
  auto all = lines("recorded_answers.jsonl");
  REQUIRE(all.size() > 20);
  for (const auto& line : all) {
    dom::element recorded = theirs.parse(line);
    bool chat = string_of(recorded["endpoint"]) == "chat";
    INFO(string_of(recorded["id"]));
    if (dom::element body; !recorded["body"].get(body))
      check_includes(body, ours.parse(our_body(body, chat)), "");
    if (dom::array frames; !recorded["frames"].get(frames))
      for (auto frame : frames)
        check_includes(frame, ours.parse(json_of(our_frame(frame, chat))), "");
  }
}
