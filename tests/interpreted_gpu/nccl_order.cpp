#include "tests/interpreted_gpu/device.hpp"
#include "tests/unit/ranks/fake_nccl/order.hpp"

#include <cstdio>
#include <cstdlib>

namespace fake_nccl {

void run_in_order(void* stream, std::function<void()> begin,
                  std::function<void()> last) {
  auto& on = *static_cast<troupe::interpreted::stream*>(stream);
  if (on.is_captured()) {
    std::fputs("NCCL is called wrongly: its call would be captured\n", stderr);
    std::abort();
  }
  on.add([begin, last] {
    begin();
    last();
  });
}

} // namespace fake_nccl
