#include "engine/request_check.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace troupe::engine {

namespace {

using fault = std::optional<error>;

fault invalid(std::string message) {
  return error{errc::invalid_argument, std::move(message)};
}

class checker {
public:
  checker(const request& r, const request_bounds& bounds)
      : request_(r), params_(r.params), bounds_(bounds) {
  }

  fault run() const {
    for (auto check :
         {&checker::lengths, &checker::token_ids, &checker::sampling,
          &checker::penalties, &checker::counts})
      if (fault found = (this->*check)())
        return found;
    return std::nullopt;
  }

private:
  fault lengths() const {
    const std::uint64_t prompt = request_.prompt.size();
    const std::uint64_t given = prompt + request_.resume.size();
    const std::uint64_t longest = bounds_.max_model_len;
    if (prompt == 0)
      return invalid("the prompt is empty");
    if (given > longest || (prompt == longest && params_.max_tokens > 0))
      return invalid("the prompt has " + std::to_string(given) +
                     " tokens; prompt and output together may have " +
                     std::to_string(longest));
    // The last token drawn needs no keys and values.
    const std::uint64_t most =
        std::min<std::uint64_t>(prompt + params_.max_tokens, longest);
    if (std::max(given, most - 1) > bounds_.kv_positions)
      return error{errc::limit, "prompt and output may reach " +
                                    std::to_string(most) +
                                    " tokens; the KV cache holds " +
                                    std::to_string(bounds_.kv_positions)};
    return std::nullopt;
  }

  fault ids(std::span<const token_id> tokens, const char* where) const {
    return find_foreign_id(tokens, where, bounds_.vocabulary);
  }

  fault token_ids() const {
    if (fault found = ids(request_.prompt, "prompt"))
      return found;
    if (fault found = ids(request_.resume, "output so far"))
      return found;
    if (fault found = ids(params_.stop_token_ids, "stop_token_ids"))
      return found;
    for (auto [id, bias] : params_.logit_bias) {
      if (fault found = ids({&id, 1}, "logit_bias"))
        return found;
      if (!std::isfinite(bias))
        return invalid("logit_bias is not a finite number");
    }
    return std::nullopt;
  }

  // Comparisons are written so that NaN fails them.
  fault sampling() const {
    if (!(params_.temperature >= 0 && std::isfinite(params_.temperature)))
      return invalid("temperature is not a finite number of at least 0");
    if (!(params_.top_p > 0 && params_.top_p <= 1))
      return invalid("top_p is not in (0, 1]");
    if (params_.top_k < 0)
      return invalid("top_k is negative");
    if (!(params_.min_p >= 0 && params_.min_p <= 1))
      return invalid("min_p is not in [0, 1]");
    return std::nullopt;
  }

  fault penalties() const {
    if (!std::isfinite(params_.frequency_penalty))
      return invalid("frequency_penalty is not a finite number");
    if (!std::isfinite(params_.presence_penalty))
      return invalid("presence_penalty is not a finite number");
    if (!(params_.repetition_penalty > 0 &&
          std::isfinite(params_.repetition_penalty)))
      return invalid("repetition_penalty is not a finite number above 0");
    return std::nullopt;
  }

  fault counts() const {
    if (params_.logprobs < -1)
      return invalid("logprobs is below -1");
    if (params_.prompt_logprobs < -1)
      return invalid("prompt_logprobs is below -1");
    return std::nullopt;
  }

  const request& request_;
  const sampling_params& params_;
  const request_bounds& bounds_;
};

} // namespace

std::optional<error> find_fault(const request& r,
                                const request_bounds& bounds) {
  return checker{r, bounds}.run();
}

std::optional<error> find_foreign_id(std::span<const token_id> ids,
                                     const char* where,
                                     std::int32_t vocabulary) {
  for (token_id id : ids)
    if (id < 0 || id >= vocabulary)
      return invalid(std::string{where} + ": token id " + std::to_string(id) +
                     " is not in the vocabulary of " +
                     std::to_string(vocabulary));
  return std::nullopt;
}

output refusal_of(std::uint64_t id, error why) {
  output news;
  news.id = id;
  news.finish = finish_reason::error;
  news.code = why.code;
  news.message = std::move(why.message);
  return news;
}

error full_queue(std::uint32_t max_waiting) {
  return {errc::limit, "the engine's queue is full: " +
                           std::to_string(max_waiting) + " choices wait"};
}

} // namespace troupe::engine
