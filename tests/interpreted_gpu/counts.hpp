#pragma once

#include "tests/ptx/machine.hpp"

#include <string>

namespace troupe::interpreted {

/// Whether what kernels do is to be counted: INTERPRETED_GPU_COUNTS names the
/// file to which it is written when the process ends, a line of JSON for each
/// kernel.
bool counts_are_wanted();

/// Of one launch.
void count(const std::string& kernel, const ptx::launch& how,
           const ptx::work_done& done);

} // namespace troupe::interpreted
