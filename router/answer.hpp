#pragma once

#include "actors/protocol/token_batch.hpp"
#include "engine/codec/error.hpp"
#include "engine/text/detokenizer.hpp"
#include "engine/text/stop_strings.hpp"
#include "engine/text/tokenizer.hpp"
#include "router/api/openai.hpp"
#include "router/reply_content.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::router {

/// What a client asked for, as far as it shapes the answer.
struct answer_plan {
  api::answer_head head;
  bool chat = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool include_stop_in_output = false;
  bool skip_special_tokens = true;
  bool with_logprobs = false;
  bool echo = false; ///< the prompt comes before the answer
  /// Only the prompt is shown: the token that the replica draws is dropped.
  bool echo_only = false;
  std::uint32_t max_tokens = 0;
  std::uint32_t min_tokens = 0; ///< stop strings count only after these
  std::vector<std::string> stop;
  std::vector<token_id> stop_token_ids; ///< the client's; EOS has no reason
  std::uint32_t n = 1;                  ///< choices per prompt
  std::vector<std::vector<token_id>> prompts;
  std::vector<std::string> prompt_texts; ///< with echo, one per prompt
  std::shared_ptr<const text::tokenizer> tokenizer;
  std::uint32_t vocabulary_size = 0; ///< ids beyond it cannot be true
};

/// Text, stop strings, log-probabilities, usage and frames out of the ids of
/// the choices. Choice = prompt index x n + i.
class answer final : public reply_content {
public:
  explicit answer(answer_plan);

  bool streams() const override {
    return plan_.stream;
  }
  std::uint32_t openings() const override;
  void open(std::uint32_t part, std::string& frames) const override;
  result<bool> take(std::uint32_t choice, const protocol::choice_tokens& news,
                    std::string& frames) override;
  bool complete() const override {
    return open_ == 0;
  }
  /// Usage if asked for, [DONE].
  std::string closing_frames() const override;
  std::string body() const override;
  api::usage usage() const override;
  api::answer_head& head() override {
    return plan_.head;
  }
  std::uint32_t choices() const override {
    return static_cast<std::uint32_t>(choices_.size());
  }
  const std::string& finish_reason(std::uint32_t choice) const override {
    return choices_[choice].piece.finish_reason;
  }

private:
  struct choice_state {
    text::detokenizer detokenizer;
    text::stop_strings stops;
    api::choice_piece piece; // not shown yet; all of it when not streaming
    std::uint64_t completion_tokens = 0;
    std::uint64_t cached_tokens = 0;
    std::size_t text_offset = 0;
    bool started = false;
    bool open = true;
  };

  const std::vector<token_id>& prompt_of(std::uint32_t choice) const {
    return plan_.prompts[choice / plan_.n];
  }

  std::optional<error> check(const choice_state&,
                             const protocol::choice_tokens&) const;
  void begin(std::uint32_t choice, const protocol::choice_tokens&);
  void show_prompt(std::uint32_t choice, const protocol::choice_tokens&);
  bool take_token(choice_state&, const protocol::choice_tokens&, std::size_t i);
  bool add_text(choice_state&, token_id);
  bool matched(choice_state&, std::optional<std::size_t> stop);
  void end(choice_state&, const protocol::choice_tokens&);
  void close(choice_state&);
  void show(choice_state&, token_id,
            const std::vector<protocol::token_logprob>* candidates);
  void flush(std::uint32_t choice, std::string& frames);
  std::optional<api::usage> running_usage(std::uint32_t choice) const;

  answer_plan plan_;
  std::vector<choice_state> choices_;
  std::size_t open_ = 0;
};

} // namespace troupe::router
