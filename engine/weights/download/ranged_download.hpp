#pragma once

#include "engine/weights/download/model_cache.hpp"
#include "engine/weights/download/origin.hpp"

#include <cstdint>
#include <functional>

namespace troupe::download {

/// What a transfer needs beside the file.
struct transfer {
  origin& from;
  const listing& all;
  const fetch_settings& settings;
  cancelled is_cancelled;
  /// Bytes of the file that are done, now and then, on the caller's thread.
  std::function<void(std::uint64_t done)> on_progress;
};

/// Brings `file` into the cache's blobs, checked: over several connections,
/// going on with what an earlier transfer left, and from nothing once if its
/// content changed meanwhile or is not what was announced. The caller holds the
/// file's lock. Returns how many bytes came over the network.
result<std::uint64_t> download_blob(const transfer&, const model_cache&,
                                    const remote_file& file);

} // namespace troupe::download
