#pragma once

#include <functional>

namespace fake_nccl {

/// A call's two parts, where the stream has it: what begins it, and what lasts
/// until it is over. Defined by who has streams (tests/interpreted_gpu), and by
/// at_once.cpp, which begins at once and leaves waiting to fake_nccl_wait.
void run_in_order(void* stream, std::function<void()> begin,
                  std::function<void()> last);

} // namespace fake_nccl
