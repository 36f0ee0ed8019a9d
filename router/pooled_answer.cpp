#include "router/pooled_answer.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace troupe::router {

namespace {

/// The front of an embedding, made a vector of length one again.
std::vector<float> front_of(const std::vector<float>& whole, std::size_t size) {
  std::vector<float> out{whole.begin(),
                         whole.begin() + static_cast<std::ptrdiff_t>(size)};
  double squares = 0;
  for (auto number : out)
    squares += static_cast<double>(number) * number;
  if (squares > 0)
    for (auto& number : out)
      number = static_cast<float>(number / std::sqrt(squares));
  return out;
}

} // namespace

pooled_answer::pooled_answer(pooled_plan plan)
    : plan_(std::move(plan)), vectors_(plan_.prompt_tokens.size()),
      open_(vectors_.size()) {
  // nop
}

result<bool> pooled_answer::take(std::uint32_t choice,
                                 const protocol::choice_tokens& news,
                                 std::string&) {
  if (choice >= vectors_.size() || !vectors_[choice].empty())
    return false;
  auto is_finite = [](float number) { return std::isfinite(number); };
  if (news.reason != protocol::finish::stop ||
      news.vector.size() != plan_.size ||
      !std::all_of(news.vector.begin(), news.vector.end(), is_finite))
    return error{errc::internal, "The replica's answer was not valid."};
  vectors_[choice] = news.vector;
  --open_;
  return false;
}

std::string pooled_answer::body() const {
  return std::visit([this](const auto& what) { return body_of(what); },
                    plan_.what);
}

api::usage pooled_answer::usage() const {
  return {std::accumulate(plan_.prompt_tokens.begin(),
                          plan_.prompt_tokens.end(), std::uint64_t{0}),
          0, 0};
}

const std::string& pooled_answer::finish_reason(std::uint32_t) const {
  static const std::string stop = "stop";
  return stop;
}

std::string pooled_answer::body_of(const embeddings_plan& what) const {
  if (what.dimensions == 0 || what.dimensions == plan_.size)
    return api::embeddings_body(plan_.head, vectors_, what.base64, usage());
  std::vector<std::vector<float>> fronts;
  for (const auto& vector : vectors_)
    fronts.push_back(front_of(vector, what.dimensions));
  return api::embeddings_body(plan_.head, fronts, what.base64, usage());
}

std::string pooled_answer::body_of(const scores_plan&) const {
  std::vector<float> scores;
  for (const auto& vector : vectors_)
    scores.push_back(vector.front());
  return api::scores_body(plan_.head, scores, usage());
}

std::string pooled_answer::body_of(const ranking_plan& what) const {
  std::vector<api::ranked_document> ranking;
  for (std::uint32_t i = 0; i < vectors_.size(); ++i)
    ranking.push_back({i, vectors_[i].front(),
                       what.documents.empty() ? nullptr : &what.documents[i]});
  std::stable_sort(ranking.begin(), ranking.end(),
                   [](auto& a, auto& b) { return a.score > b.score; });
  if (what.count_max != 0 && what.count_max < ranking.size())
    ranking.resize(what.count_max);
  return api::ranking_body(plan_.head, ranking, usage());
}

} // namespace troupe::router
