#pragma once

#include "tests/sim/process.hpp"
#include "tests/sim/world.hpp"

namespace troupe::sim {

/// While it lives, this thread's code is a process of a host. Shipped code that
/// asks the system for the time of day gets that host's wall clock; code that
/// asks for the steady time ends the program: a machine is told what time it
/// is. (The linker turns the calls to these functions, see CMakeLists.txt.)
class shown_clock {
public:
  shown_clock(const host_clock&, const world&);
  ~shown_clock();
  shown_clock(const shown_clock&) = delete;
  shown_clock& operator=(const shown_clock&) = delete;

private:
  const host_clock* clock_before_;
  const world* world_before_;
};

} // namespace troupe::sim
