#pragma once

#include "engine/ops/cpu/cpu_backend.hpp"

#include <vector>

namespace troupe::test {

inline std::vector<ops::cpu::instruction_set> sets_of_this_machine() {
  using ops::cpu::instruction_set;
  std::vector<instruction_set> out;
  for (auto isa : {instruction_set::plain, instruction_set::avx2,
                   instruction_set::avx512, instruction_set::amx})
    if (ops::cpu::machine_has(isa))
      out.push_back(isa);
  return out;
}

} // namespace troupe::test
