#pragma once

#include "engine/ops/backend.hpp"
#include "engine/ops/dense_layout.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace troupe::cuda {

struct product_shape {
  std::int64_t outputs = 0;
  std::int64_t cols = 0;
  ops::library_kind kind = ops::library_kind::bf16; ///< of the weight

  auto operator<=>(const product_shape&) const = default;
};

/// An algorithm of a library for products, as it takes it back.
using product_algorithm = std::array<std::uint64_t, 8>;

/// How products are made: by an algorithm, or by our own kernel (nothing).
using product_choice = std::optional<product_algorithm>;

/// The rows of a trial. An algorithm is admitted only if a row's bits are the
/// same in all these companies (DESIGN.md, "Exactness").
inline constexpr std::array<std::int64_t, 8> trial_rows{1,  2,  8,   16,
                                                        17, 64, 256, 2048};
inline constexpr std::int64_t trial_rows_most = trial_rows.back();

/// Makes products of one shape with numbers of its own.
class product_trial {
public:
  virtual ~product_trial() = default;

  /// What the library proposes, its best first.
  virtual std::vector<product_algorithm> proposed() = 0;

  /// Makes the product of all `trial_rows_most` rows, to which others are
  /// compared. False if the algorithm cannot.
  virtual bool begin(const product_algorithm& algorithm) = 0;

  /// Whether the product of `rows` rows from `first` on gives the bits that
  /// they had among all. False too if the algorithm cannot.
  virtual bool same_rows(const product_algorithm& algorithm, std::int64_t first,
                         std::int64_t rows) = 0;

  /// Of a product of so many rows; nothing if the algorithm cannot.
  virtual std::optional<double> seconds(const product_choice& choice,
                                        std::int64_t rows) = 0;
};

/// Whether a row's bits do not depend on its company.
bool keeps_rows(product_trial& trial, const product_algorithm& algorithm);

/// What a product of so many rows took, in nanoseconds.
struct product_time {
  std::int64_t rows = 0;
  std::int64_t chosen_ns = 0;
  /// Of the fastest for so many rows, whether or not it keeps rows: the
  /// difference is what the arithmetic contract costs.
  std::int64_t fastest_ns = 0;

  bool operator==(const product_time&) const = default;
};

struct chosen_product {
  product_choice what;
  std::vector<product_time> times; ///< empty where there was no choice

  bool operator==(const chosen_product&) const = default;
};

/// The arithmetic of a role for a shape: the fastest that keeps rows, by the
/// sum of what it takes for the role's numbers of rows, each against our own
/// kernel. Of those within 5 % of the best the first is taken (our own before
/// all, then in the library's order), so that noise decides seldom.
/// What was looked at for another role is not looked at again (`kept`).
chosen_product choose_product(product_trial& trial, ops::row_role role,
                              std::map<product_algorithm, bool>& kept);

} // namespace troupe::cuda
