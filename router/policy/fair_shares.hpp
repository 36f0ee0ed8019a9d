#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace troupe::router {

/// Whose choice of one model is sent next, when there is room for one only: the
/// tenant's that had least, for its weight. The virtual token counter of Sheng
/// et al., "Fairness in Serving Large Language Models" (OSDI 2024), with
/// weights. It counts work (`work_of`).
///
/// A tenant that comes in counts as having had as much as who had least of
/// those inside: what it left unused while it was away is not saved up. What it
/// lags behind while it is inside is, up to `credit_max`.
class fair_shares {
public:
  static constexpr double credit_max = 4096; ///< work, over the weight

  /// One more choice of this tenant is in the table, or one less.
  void enter(const std::string& tenant, double weight);
  void leave(const std::string& tenant);

  /// It is given so much (or, below 0, was given so much less than thought).
  void charge(const std::string& tenant, double work);

  /// What it had so far, over its weight, but no less than the floor: who has
  /// less goes first. Of a tenant with a choice in the table.
  double had(const std::string& tenant, double floor) const;
  double floor() const;

  /// The part of all there is that it may claim: its weight over those of all
  /// tenants with choices in the table, and itself.
  double share(const std::string& tenant, double weight) const;

private:
  struct account {
    std::size_t choices = 0;
    double weight = 1;
    double had = 0;
  };

  std::map<std::string, account> inside_; ///< no others
  double last_ = 0;                       ///< what the last one to leave had
};

} // namespace troupe::router
