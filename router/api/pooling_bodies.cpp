#include "router/api/json_writer.hpp"
#include "router/api/pooling.hpp"

#include <bit>
#include <openssl/evp.h>
#include <span>

namespace troupe::api {

namespace {

static_assert(std::endian::native == std::endian::little,
              "vectors are sent as they lie in memory");

std::string as_base64(std::span<const float> vector) {
  auto bytes = std::as_bytes(vector);
  // OpenSSL writes a zero behind the text.
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  auto size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()),
                      static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

void write_vector(json_writer& json, const std::vector<float>& vector,
                  bool base64) {
  if (base64) {
    json.text(as_base64(vector));
    return;
  }
  json.begin_array();
  for (auto number : vector)
    json.real(number);
  json.end_array();
}

void write_list_head(json_writer& json, const answer_head& head) {
  json.key("id").text(head.id);
  json.key("object").text("list");
  json.key("created").natural(head.created);
  json.key("model").text(head.model);
}

void write_usage(json_writer& json, const usage& usage) {
  json.key("usage").begin_object();
  json.key("prompt_tokens").natural(usage.prompt_tokens);
  json.key("total_tokens").natural(usage.prompt_tokens);
  json.key("completion_tokens").natural(0);
  json.key("prompt_tokens_details").null();
  json.end_object();
}

} // namespace

std::string embeddings_body(const answer_head& head,
                            const std::vector<std::vector<float>>& vectors,
                            bool base64, const usage& usage) {
  json_writer json;
  json.begin_object();
  write_list_head(json, head);
  json.key("data").begin_array();
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    json.begin_object().key("index").natural(i);
    json.key("object").text("embedding").key("embedding");
    write_vector(json, vectors[i], base64);
    json.end_object();
  }
  json.end_array();
  write_usage(json, usage);
  return json.end_object().take();
}

std::string scores_body(const answer_head& head,
                        const std::vector<float>& scores, const usage& usage) {
  json_writer json;
  json.begin_object();
  write_list_head(json, head);
  json.key("data").begin_array();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    json.begin_object().key("index").natural(i);
    json.key("object").text("score").key("score").real(scores[i]);
    json.end_object();
  }
  json.end_array();
  write_usage(json, usage);
  return json.end_object().take();
}

std::string ranking_body(const answer_head& head,
                         const std::vector<ranked_document>& ranking,
                         const usage& usage) {
  json_writer json;
  json.begin_object();
  json.key("id").text(head.id);
  json.key("model").text(head.model);
  write_usage(json, usage);
  json.key("results").begin_array();
  for (const auto& one : ranking) {
    json.begin_object().key("index").natural(one.index);
    if (one.text != nullptr)
      json.key("document")
          .begin_object()
          .key("text")
          .text(*one.text)
          .end_object();
    json.key("relevance_score").real(one.score).end_object();
  }
  json.end_array();
  return json.end_object().take();
}

} // namespace troupe::api
