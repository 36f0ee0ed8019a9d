#pragma once

#include "actors/protocol/request_record.hpp"
#include "actors/protocol/token_batch.hpp"
#include "engine/text/value.hpp"

#include <boost/system/result.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// OpenAI's request and answer bodies, pure: bytes in, typed values out, and
/// back. No sockets, no actors, no tokenizer.
namespace troupe::api {

/// An error as clients see it: {"error": {message, type, param, code}}.
struct api_error {
  int status = 400;
  std::string message; ///< a sentence, nothing internal
  std::string type = "invalid_request_error";
  std::string param; ///< the field's path ("messages[0].role"); empty = null
  std::string code;  ///< empty = null
  /// For the header retry-after; 0: what the status has.
  std::uint32_t retry_after_s = 0;
};

template <class T>
using api_result = boost::system::result<T, api_error>;

[[noreturn]] void throw_exception_from_error(const api_error&,
                                             const boost::source_location&);

/// Which of the fields that a model may have defaults for the client gave.
struct given_sampling {
  bool temperature = false;
  bool top_p = false;
  bool top_k = false;
  bool min_p = false;
  bool repetition_penalty = false;
};

/// What chat and completions share.
struct generation_request {
  std::string model; ///< empty: the only one
  /// `choice` and `seed` are filled in by the router; `max_tokens` is 0 when
  /// the client gave none (chat: what fits; completions: 16 is already here).
  sampling_params params;
  given_sampling given;
  bool max_tokens_given = false;
  /// The field that set it, for errors: "max_tokens" or
  /// "max_completion_tokens".
  std::string_view max_tokens_field = "max_tokens";
  std::optional<std::uint64_t> seed;
  std::uint32_t n = 1;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  std::vector<std::string> stop;
  bool include_stop_in_output = false;
  bool skip_special_tokens = true;
  bool return_token_ids = false;
  std::string user;
  std::int32_t priority = 0;       ///< lower ones go first
  std::optional<double> timeout_s; ///< the client waits no longer
};

struct chat_request : generation_request {
  text::value
      messages; ///< list of maps; strings are content spans, but roles
                ///< and keys; text parts are joined as the template sees
                ///< them (a list of {type, text} maps when several)
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  std::string chat_template; ///< instead of the model's; empty: the model's
  text::value::map template_kwargs;     ///< strings are content
  std::optional<text::value> documents; ///< list of maps; strings are content
  std::optional<text::value> tools;     ///< likewise
  bool logprobs = false;                ///< params.logprobs holds top_logprobs
};

/// One prompt of a completion: text or ids.
using prompt = std::variant<std::string, std::vector<token_id>>;

struct completion_request : generation_request {
  std::vector<prompt> prompts;
  bool echo = false;
  bool add_special_tokens = true;
};

/// What is to be shown as ids: a chat, or the one text of a completion's
/// prompt.
struct tokenize_request {
  std::variant<chat_request, completion_request> what;
  bool return_token_strs = false;
};

/// Ids that are to be shown as text.
struct detokenize_request {
  std::string model; ///< empty: the only one
  std::vector<token_id> tokens;
};

/// Bounds that need no model; ids and lengths are checked by the router against
/// the model card.
api_result<chat_request> parse_chat_request(std::string_view body);
api_result<completion_request> parse_completion_request(std::string_view body);

/// A body with `messages` is a chat.
api_result<tokenize_request> parse_tokenize_request(std::string_view body);
api_result<detokenize_request> parse_detokenize_request(std::string_view body);

/// Turns each content that is a list of text parts into one string, the parts
/// joined by a line feed: for templates that know string contents only.
void join_text_parts(text::value& messages);

struct usage {
  std::uint64_t prompt_tokens = 0;
  std::uint64_t completion_tokens = 0;
  std::uint64_t cached_tokens = 0;
};

/// A token with its candidates as text, for `logprobs` blocks. `bytes` are the
/// token's exact bytes; JSON text of it is U+FFFD-repaired.
struct shown_candidate {
  std::string bytes;
  float logprob = 0;
};

struct shown_token {
  token_id id = 0;
  std::string bytes;
  std::optional<float> logprob; ///< unset: first prompt token under echo
  std::vector<shown_candidate> top;
  std::size_t text_offset = 0; ///< completions: characters before it
};

/// A piece of one choice: a delta when streaming, all of it when not.
struct choice_piece {
  std::uint32_t index = 0;
  std::string text;
  std::vector<token_id> token_ids; ///< shown if asked for
  std::vector<token_id>
      prompt_token_ids; ///< first piece or whole, if asked for
  bool with_logprobs = false;
  std::vector<shown_token> tokens; ///< with_logprobs
  std::string finish_reason;       ///< "stop", "length", ...; empty = null
  /// The stop string, or the stop token's id; unset = null.
  std::variant<std::monostate, std::string, token_id> stop_reason;
};

/// What every body of one answer repeats.
struct answer_head {
  std::string id; ///< "chatcmpl-..." or "cmpl-..."
  std::string model;
  std::uint64_t created = 0;      ///< seconds since 1970
  std::string system_fingerprint; ///< arithmetic class; empty = null
  bool return_token_ids = false;
  /// The client asked for usage: frames without it say `"usage": null`.
  bool include_usage = false;
};

// Whole answers. Text that is not UTF-8 is repaired with U+FFFD; a
// log-probability that is not finite is shown as -9999.0.
std::string chat_body(const answer_head&, const std::vector<choice_piece>&,
                      const usage&);
std::string completion_body(const answer_head&,
                            const std::vector<choice_piece>&, const usage&);

// SSE frames, "data: ...\n\n".
std::string chat_role_frame(const answer_head&, std::uint32_t index,
                            const std::vector<token_id>& prompt_token_ids,
                            const std::optional<usage>&);
std::string chat_frame(const answer_head&, const choice_piece&,
                       const std::optional<usage>&);
std::string completion_frame(const answer_head&, const choice_piece&,
                             const std::optional<usage>&);
/// `choices: []` and the usage; `chat` picks the object's name.
std::string usage_frame(const answer_head&, bool chat, const usage&);
std::string error_frame(const api_error&);
inline constexpr std::string_view done_frame = "data: [DONE]\n\n";

std::string error_body(const api_error&);

/// `strings`: the tokens' bytes, as many as there are tokens; none = null.
std::string tokenize_body(const std::vector<token_id>& tokens,
                          std::uint32_t max_model_len,
                          const std::vector<std::string>& strings);
std::string detokenize_body(std::string_view prompt);

struct model_entry {
  std::string id;
  std::uint64_t created = 0;
  std::uint32_t max_model_len = 0; ///< 0 = not known yet
  std::string_view task = {}; ///< "generate", "embed", "score"; empty likewise
};

std::string models_body(const std::vector<model_entry>&);
std::string model_body(const model_entry&);

} // namespace troupe::api
