#pragma once

#include "tests/sim/process.hpp"
#include "tests/sim/world.hpp"

namespace troupe::sim {

/// The way of reports of load, in half of all runs: some are lost, come late,
/// behind newer ones, or twice. (Not by TCP, which keeps what it has; but they
/// carry incarnation and sequence so that this does no harm, to the end of the
/// run.)
class unsteady_reports {
public:
  explicit unsteady_reports(world&);

  /// Says it now, later, twice or never. `from`: who says it.
  void pass(process& from, const world::action& say) const;
  /// The same of what relies on the order: now, twice or never.
  void pass_in_order(const world::action& say) const;
  /// Says it once more, later, or not: what is said anyhow.
  void repeat(process& from, const world::action& say) const;

private:
  world& world_;
  double share_ = 0; ///< of all reports
};

} // namespace troupe::sim
