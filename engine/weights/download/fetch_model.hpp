#pragma once

#include "engine/weights/download/fetch_settings.hpp"
#include "engine/weights/download/file_choice.hpp"
#include "engine/weights/download/http_session.hpp"
#include "engine/weights/download/model_cache.hpp"
#include "engine/weights/download/model_reference.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace troupe::download {

/// What `fetch_model` does at the moment.
struct fetch_progress {
  enum class stage : std::uint8_t {
    asking,   ///< what there is
    waiting,  ///< for another process that fetches the same file
    checking, ///< what was there, see fetch_settings::verify
    fetching, ///< and checking
    there,    ///< the file was in the cache
  };
  stage now = stage::asking;
  std::string file;              ///< name, from `waiting` on
  std::uint64_t bytes_done = 0;  ///< of all files, those that were there too
  std::uint64_t bytes_total = 0; ///< 0 = not known yet
};

/// Both are called on the caller's thread. `cancelled` is asked many times a
/// second: true ends the work with errc::cancelled; what came stays for the
/// next time.
struct fetch_watch {
  std::function<void(const fetch_progress&)> progress;
  cancelled is_cancelled;
};

struct fetched_model {
  std::filesystem::path path; ///< a .gguf file or a directory
  std::string version;        ///< a commit, or a hash of a bucket's list
  std::uint64_t bytes_fetched = 0;
  /// Why the cache alone was asked though one is not offline; else empty.
  std::string note;
  /// With fetch_settings::verify, files of the cache: their content was
  /// another, and they were fetched anew.
  name_list broken = {};
  /// Likewise: the origin says no hash of their content, so that the size alone
  /// was compared.
  name_list unchecked = {};
};

/// Brings a model (or its tokenizer) into the cache and says where it is. A
/// path is given back as it is. What is in the cache already is not fetched
/// again, and one process at a time fetches a file: others wait for it. Nothing
/// gets its place in the cache before its hash was checked.
///
/// Offline, and for a commit that the cache has, no request is made. If the
/// origin cannot be reached, what the cache has of the revision is used, with a
/// note. Neither holds for `settings.verify`.
///
/// Errors: what the origin says, in words that help (gated, private, no such
/// thing); errc::limit before the first byte if the disk has no room for what
/// is missing.
result<fetched_model> fetch_model(const model_reference&, wanted,
                                  const fetch_settings&, const fetch_watch&);

} // namespace troupe::download
