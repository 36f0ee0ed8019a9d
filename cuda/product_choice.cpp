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
  std::vector<double> seconds; ///< by number of rows
  double score = 0;            ///< less is better
};

/// The score is infinite if it cannot do one of the numbers of rows.
candidate tried(product_trial& trial, const product_choice& what,
                ops::row_role role, std::span<const double> own) {
  constexpr auto never = std::numeric_limits<double>::infinity();
  candidate out{what, {}, 0};
  const auto all = rows_of(role);
  for (std::size_t i = 0; i < all.size(); ++i) {
    out.seconds.push_back(trial.seconds(what, all[i]).value_or(never));
    out.score += out.seconds.back() / own[i];
  }
  return out;
}

chosen_product chosen(const candidate& one, std::span<const candidate> all,
                      ops::row_role role) {
  chosen_product out{one.what, {}};
  const auto rows = rows_of(role);
  const auto in_ns = [](double seconds) {
    return static_cast<std::int64_t>(seconds * 1e9);
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto fastest = one.seconds[i];
    for (const auto& other : all)
      fastest = std::min(fastest, other.seconds[i]);
    out.times.push_back({rows[i], in_ns(one.seconds[i]), in_ns(fastest)});
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

chosen_product choose_product(product_trial& trial, ops::row_role role,
                              std::map<product_algorithm, bool>& kept) {
  const auto proposed = trial.proposed();
  if (proposed.empty())
    return {};
  std::vector<double> own;
  for (const auto rows : rows_of(role))
    own.push_back(trial.seconds({}, rows).value());
  std::vector<candidate> all{{{}, own, static_cast<double>(own.size())}};
  for (const auto& one : proposed)
    all.push_back(tried(trial, one, role, own));
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
      return chosen(all[i], all, role);
  return chosen(all[best], all, role);
}

} // namespace troupe::cuda
