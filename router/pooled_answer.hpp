#pragma once

#include "router/api/pooling.hpp"
#include "router/reply_content.hpp"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace troupe::router {

/// Vectors, one per text.
struct embeddings_plan {
  std::uint32_t dimensions = 0; ///< that are shown; 0 = all
  bool base64 = false;
};

/// Scores, in the order of the pairs.
struct scores_plan {};

/// Scores, best first.
struct ranking_plan {
  std::vector<std::string> documents; ///< to be shown; empty = not
  std::size_t count_max = 0;          ///< 0 = all
};

struct pooled_plan {
  api::answer_head head;
  std::variant<embeddings_plan, scores_plan, ranking_plan> what;
  std::uint32_t size = 0;                   ///< numbers that each choice gives
  std::vector<std::uint32_t> prompt_tokens; ///< by choice
};

/// The answer to a request whose choices each give a vector.
class pooled_answer final : public reply_content {
public:
  explicit pooled_answer(pooled_plan);

  bool streams() const override {
    return false;
  }
  std::uint32_t openings() const override {
    return 0;
  }
  void open(std::uint32_t, std::string&) const override {
    // nop
  }
  result<bool> take(std::uint32_t choice, const protocol::choice_tokens& news,
                    std::string& frames) override;
  bool complete() const override {
    return open_ == 0;
  }
  std::string closing_frames() const override {
    return {};
  }
  std::string body() const override;
  api::usage usage() const override;
  api::answer_head& head() override {
    return plan_.head;
  }
  std::uint32_t choices() const override {
    return static_cast<std::uint32_t>(vectors_.size());
  }
  const std::string& finish_reason(std::uint32_t choice) const override;

private:
  std::string body_of(const embeddings_plan&) const;
  std::string body_of(const scores_plan&) const;
  std::string body_of(const ranking_plan&) const;

  pooled_plan plan_;
  std::vector<std::vector<float>> vectors_; ///< empty: has not ended
  std::size_t open_ = 0;
};

} // namespace troupe::router
