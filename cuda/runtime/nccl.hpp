#pragma once

#include "cuda/device_transport.hpp"
#include "engine/codec/error.hpp"
#include "engine/ops/communicator.hpp"
#include "engine/ops/thread_group.hpp"

#include <memory>

namespace troupe::cuda {

/// A stream of CUDA, as its headers name it.
using cuda_stream = void*;

/// Connects ranks on GPUs of their own by NCCL, which is opened at run time.
/// All ranks call it, each on the thread and with the GPU that it computes
/// with; returns when all are connected. `hosts` are all ranks, and bring the
/// id to all; the group those of this process. When that ends, what a GPU waits
/// for there is given up: it goes on with what are no numbers. Errors say what
/// is lacking; throws ops::rank_lost.
result<std::unique_ptr<device_transport>>
connect_nccl(std::shared_ptr<ops::thread_group>, ops::communicator& hosts,
             cuda_stream stream);

} // namespace troupe::cuda
