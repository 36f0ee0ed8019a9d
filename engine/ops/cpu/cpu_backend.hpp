#pragma once

#include "engine/ops/backend.hpp"

#include <memory>
#include <optional>
#include <string_view>

namespace troupe::ops::cpu {

/// Which kernels run. All give the same bits.
enum class instruction_set : std::uint8_t { plain, avx2, avx512, amx };

struct options {
  /// Threads of the team, the caller's among them; 0 = one per core that this
  /// process may use.
  int threads = 0;
  /// Unset: TROUPE_CPU ("plain", "avx2", "avx512", "amx") if set, else the best
  /// that the machine has.
  std::optional<instruction_set> isa;
};

/// Fails with the reason if `isa` or TROUPE_CPU asks for what this machine
/// lacks or names nothing known.
result<std::unique_ptr<backend>> make_backend(const options&);

/// What this machine can run.
bool machine_has(instruction_set isa);

} // namespace troupe::ops::cpu
