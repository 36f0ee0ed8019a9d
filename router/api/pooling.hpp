#pragma once

#include "router/api/openai.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Requests that are answered with vectors and scores instead of text: OpenAI's
/// embeddings, vLLM's score, and rerank as Jina and Cohere shaped it.
namespace troupe::api {

/// What the three share.
struct pooling_request {
  std::string model; ///< empty: the only one
  std::string user;
  std::int32_t priority = 0;       ///< lower ones go first
  std::optional<double> timeout_s; ///< the client waits no longer
  /// Longer texts lose their end: tokens that are left, with what the tokenizer
  /// puts around them. Unset: they are refused. -1: as many as the model takes.
  std::optional<std::int64_t> truncate_prompt_tokens;
};

struct embedding_request : pooling_request {
  std::vector<prompt> inputs;
  std::uint32_t dimensions = 0; ///< 0 = all that the model gives
  bool base64 = false;
  bool add_special_tokens = true;
};

/// Pair i is first[i] and second[i]; a single first text is paired with every
/// second one.
struct score_request : pooling_request {
  std::vector<std::string> first;
  std::vector<std::string> second;
};

struct rerank_request : pooling_request {
  std::string query;
  std::vector<std::string> documents;
  std::uint32_t top_n = 0; ///< 0 = all
  bool return_documents = true;
};

api_result<embedding_request> parse_embedding_request(std::string_view body);
api_result<score_request> parse_score_request(std::string_view body);
api_result<rerank_request> parse_rerank_request(std::string_view body);

/// `base64`: the vectors' floats, little-endian, as base64 text.
std::string embeddings_body(const answer_head&,
                            const std::vector<std::vector<float>>&, bool base64,
                            const usage&);

std::string scores_body(const answer_head&, const std::vector<float>&,
                        const usage&);

struct ranked_document {
  std::uint32_t index = 0; ///< in the request
  float score = 0;
  const std::string* text = nullptr; ///< null: not asked for
};

std::string ranking_body(const answer_head&,
                         const std::vector<ranked_document>&, const usage&);

} // namespace troupe::api
