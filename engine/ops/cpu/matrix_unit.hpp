#pragma once

namespace troupe::ops::cpu {

/// Whether this CPU has AMX for int8 and bf16, the system lets this process use
/// it, and its products of bf16 are those that kernels.hpp states (Intel's
/// manual leaves their order open). Found out once.
bool matrix_unit_as_written();

} // namespace troupe::ops::cpu
