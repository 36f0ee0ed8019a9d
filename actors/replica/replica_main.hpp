#pragma once

namespace troupe::replica {

/// The hidden verb `troupe replica`: `run_replica` (replica_process.hpp) with
/// the engine of this build. `lifeline` is protocol::lifeline_fd.
int run_replica(int lifeline);

} // namespace troupe::replica
