#include "cuda/product_choice.hpp"

#include <algorithm>
#include <limits>

namespace troupe::cuda {

namespace {

/// What a role's steps have: a prompt's chunks, or a token of each sequence.
std::span<const std::int64_t> rows_of(ops::row_role role) {
  static constexpr std::int64_t prompt[] = {64, 256, 2048};
  static constexpr std::int64_t output[] = {1, 8, 32, 128};
  if (role == ops::row_role::prompt)
    return prompt;
  return output;
}

struct candidate {
  product_choice what;
  double score = 0; ///< less is better
};

/// Infinite if it cannot do one of the numbers of rows.
double score_of(product_trial& trial, const product_choice& what,
                ops::row_role role, std::span<const double> own) {
  double out = 0;
  const auto all = rows_of(role);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto took = trial.seconds(what, all[i]);
    if (!took)
      return std::numeric_limits<double>::infinity();
    out += *took / own[i];
  }
  return out;
}

} // namespace

bool keeps_rows(product_trial& trial, const product_algorithm& algorithm) {
  if (!trial.begin(algorithm))
    return false;
  for (const auto rows : trial_rows) {
    const auto last = trial_rows_most - rows;
    for (const auto first : {std::int64_t{0}, last / 2, last})
      if (!trial.same_rows(algorithm, first, rows))
        return false;
  }
  return true;
}

product_choice choose_product(product_trial& trial, ops::row_role role,
                              std::map<product_algorithm, bool>& kept) {
  const auto proposed = trial.proposed();
  if (proposed.empty())
    return {};
  std::vector<double> own;
  for (const auto rows : rows_of(role))
    own.push_back(trial.seconds({}, rows).value());
  std::vector<candidate> all{{{}, static_cast<double>(own.size())}};
  for (const auto& one : proposed)
    all.push_back({one, score_of(trial, one, role, own)});
  // Few are looked at: the fastest first, until one is admitted.
  std::vector<std::size_t> order(all.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return all[a].score < all[b].score; });
  const auto admit = [&](const candidate& one) {
    if (!one.what)
      return true; // our own
    const auto [found, is_new] = kept.try_emplace(*one.what, false);
    if (is_new)
      found->second = keeps_rows(trial, *one.what);
    return found->second;
  };
  const auto best = *std::find_if(order.begin(), order.end(),
                                  [&](auto i) { return admit(all[i]); });
  constexpr double near = 1.05;
  for (std::size_t i = 0; i < best; ++i)
    if (all[i].score <= near * all[best].score && admit(all[i]))
      return all[i].what;
  return all[best].what;
}

} // namespace troupe::cuda
