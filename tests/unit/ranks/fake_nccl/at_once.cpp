#include "tests/unit/ranks/fake_nccl/order.hpp"

namespace fake_nccl {

void run_in_order(void*, std::function<void()> begin, std::function<void()>) {
  begin();
}

} // namespace fake_nccl
