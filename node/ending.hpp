#pragma once

#include <chrono>

// How a process of the cluster is ended from outside.

namespace troupe::node {

/// Blocks SIGINT, SIGTERM and SIGHUP in this thread and all that it starts, so
/// that `ending_within` gets them; what the parent ignores for us (nohup, "&"
/// in a script) stays ignored. Sets SIGPIPE and SIGCHLD as the cluster needs
/// them. Call it before any thread starts.
void hold_ending_signals();

/// Waits so long for one of them; true if one came.
bool ending_within(std::chrono::milliseconds);

/// From now on another SIGINT or SIGTERM ends the process at once.
void end_at_next_signal();

/// Ends the process, as failed, after so long: nothing is left to wait for, and
/// an actor that hangs must not hold it.
void end_at_the_latest(std::chrono::seconds);

} // namespace troupe::node
