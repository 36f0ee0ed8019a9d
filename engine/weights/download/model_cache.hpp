#pragma once

#include "engine/codec/error.hpp"
#include "engine/weights/download/origin.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::download {

using name_list = std::vector<std::string>;

/// Held while this object lives; the kernel lets go when the process dies.
class file_lock {
public:
  file_lock(file_lock&& other) noexcept;
  file_lock& operator=(file_lock&& other) noexcept;
  ~file_lock();

  /// Nothing if somebody else holds it.
  static result<std::optional<file_lock>>
  try_take(const std::filesystem::path&);

private:
  explicit file_lock(int descriptor) : descriptor_(descriptor) {
    // nop
  }
  int descriptor_ = -1;
};

/// One repository in a cache that is laid out as the hub's own client does:
///
///   ROOT/FOLDER/blobs/BLOB                    contents, by hash
///   ROOT/FOLDER/snapshots/VERSION/NAME        -> ../../blobs/BLOB
///   ROOT/FOLDER/refs/REVISION                 the VERSION that it was last
///   ROOT/.locks/FOLDER/BLOB.lock              flock: who fetches this content
///
/// and, of our own, ROOT/FOLDER/.troupe/VERSION: all names that the origin
/// offers in that version, one a line. A snapshot of another client may be a
/// part of it.
///
/// What is being fetched is BLOB.troupe.incomplete beside the blobs (a
/// partial_file): other clients leave that alone.
class model_cache {
public:
  /// `folder` is one plain name.
  model_cache(std::filesystem::path root, std::string folder);

  /// "models--org--name".
  static std::string hub_folder(std::string_view id);

  bool has_blob(const remote_file&) const;
  std::filesystem::path blob(const remote_file&) const;
  std::filesystem::path partial(const remote_file&) const;
  std::filesystem::path lock(const remote_file&) const;

  /// Of what lies at its path, whatever it is; 0 = nothing does.
  std::uint64_t blob_inode(const remote_file&) const;
  /// Takes a broken blob out; who has it open keeps it.
  result<void> drop_blob(const remote_file&) const;

  /// The directories that `blob`, `lock` and snapshots are in.
  result<void> make_directories(const std::string& version) const;

  /// Makes a file that is there as a blob appear in the snapshot.
  result<void> link(const std::string& version, const remote_file&) const;

  result<void> set_ref(const std::string& revision,
                       const std::string& version) const;

  /// The version of a revision: what its ref holds, or the revision itself if
  /// it is a version. Empty if it is not known.
  std::string version_of(const std::string& revision) const;

  std::filesystem::path snapshot(const std::string& version) const;

  /// The files of a snapshot, two levels deep. Empty if there is none.
  name_list names_in(const std::string& version) const;

  /// Keeps what the origin offers in a version.
  result<void> set_offer(const std::string& version, const name_list&) const;

  /// Empty if it is not known.
  name_list offer_of(const std::string& version) const;

  /// A path of a snapshot that may be opened: a regular file within the cache,
  /// all links followed. Errors: it is not there, or leads out of the cache.
  result<void> check_entry(const std::string& version,
                           const std::string& name) const;

  const std::filesystem::path& root() const {
    return root_;
  }

private:
  std::filesystem::path root_;
  std::filesystem::path folder_;
  std::filesystem::path locks_;
};

/// True if `text` can be the name of a version: 40 or 64 digits of hex.
bool is_version(std::string_view text);

} // namespace troupe::download
