#include "engine/weights/download/fetch_model.hpp"

#include "engine/weights/download/bucket_origin.hpp"
#include "engine/weights/download/hub_origin.hpp"
#include "engine/weights/download/model_cache.hpp"
#include "engine/weights/download/partial_file.hpp"
#include "engine/weights/download/ranged_download.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <sys/stat.h>
#include <sys/statvfs.h>

namespace troupe::download {

namespace {

namespace fs = std::filesystem;
using clock = std::chrono::steady_clock;

constexpr milliseconds lock_period{100};

/// Another process that fetches is waited for as long as its file grows, or for
/// so many stalls: it may check a hash, or be between two tries.
constexpr int stalls_waited = 10;

/// Bytes on the disk of a file that may not be there.
std::uint64_t bytes_on_disk(const fs::path& path) {
  struct stat found {};
  constexpr std::uint64_t block_bytes = 512;
  return ::lstat(path.c_str(), &found) == 0
             ? static_cast<std::uint64_t>(found.st_blocks) * block_bytes
             : 0;
}

std::string megabytes(std::uint64_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

/// Where a reference leads: an origin, a place in a cache, and a revision.
struct source {
  std::unique_ptr<origin> from;
  model_cache cache;
  std::string revision;
  std::string file;
};

source source_of(const hub_reference& x, const fetch_settings& settings) {
  return {make_hub_origin(x, settings),
          {settings.hub_cache, model_cache::hub_folder(x.id)},
          x.revision,
          x.file};
}

source source_of(const bucket_reference& x, const fetch_settings& settings) {
  return {make_bucket_origin(x, settings),
          {settings.bucket_cache, bucket_folder(x, settings)},
          "main",
          x.file};
}

/// One call of `fetch_model` for what is not a path.
class fetcher {
public:
  fetcher(std::string name, source from, wanted what,
          const fetch_settings& settings, const fetch_watch& watch)
      : name_(std::move(name)), source_(std::move(from)), what_(what),
        settings_(settings), watch_(watch),
        session_(settings.limits, settings.ca_file, watch.is_cancelled) {
    // nop
  }

  result<fetched_model> run() {
    if (source_.cache.root().is_relative())
      return error{errc::invalid_argument,
                   fmt::format("{}: the cache, {}, must be an absolute path "
                               "(HF_HUB_CACHE, HF_HOME, TROUPE_CACHE, HOME)",
                               name_, source_.cache.root().string())};
    if (settings_.offline && settings_.verify)
      return error{errc::invalid_argument,
                   name_ + ": what the cache has cannot be verified offline"};
    if (settings_.offline)
      return from_cache();
    if (is_version(source_.revision) && !settings_.verify)
      if (auto found = from_cache(source_.cache.offer_of(source_.revision)))
        return found;
    watch_.progress(now_);
    auto all = source_.from->list(session_);
    if (!all && all.error().code == errc::unavailable && !settings_.verify) {
      auto found = from_cache();
      if (!found)
        return named(all.error());
      found->note = named(all.error()).message + "; using what the cache has";
      return found;
    }
    if (!all)
      return named(all.error());
    all_ = std::move(*all);
    return fetch();
  }

private:
  error named(const error& why) const {
    return {why.code, name_ + ": " + why.message};
  }

  /// From what is known to have been offered, else from what is there.
  result<fetched_model> from_cache() const {
    auto version = source_.cache.version_of(source_.revision);
    if (version.empty())
      return from_cache({});
    auto offer = source_.cache.offer_of(version);
    return from_cache(offer.empty() ? source_.cache.names_in(version) : offer);
  }

  result<fetched_model> from_cache(const name_list& names) const {
    auto version = source_.cache.version_of(source_.revision);
    auto choice = choose_files(names, source_.file, what_);
    if (names.empty() || !choice)
      return error{errc::not_found,
                   fmt::format("{}: the cache {} does not have it{}{}", name_,
                               source_.cache.root().string(),
                               names.empty() ? "" : " whole: ",
                               names.empty() ? "" : choice.error().message)};
    return entry_of(version, *choice);
  }

  result<fetched_model> entry_of(const std::string& version,
                                 const file_choice& choice) const {
    for (const auto& name : choice.names)
      if (auto fine = source_.cache.check_entry(version, name); !fine)
        return named(fine.error());
    fetched_model out;
    out.version = version;
    out.path = source_.cache.snapshot(version);
    if (!choice.entry.empty())
      out.path /= choice.entry;
    return out;
  }

  /// `all_` is there.
  result<fetched_model> fetch() {
    auto names = offered();
    auto choice = choose_files(names, source_.file, what_);
    if (!choice)
      return named(choice.error());
    for (step one : {&fetcher::complete, &fetcher::drop_broken,
                     &fetcher::make_room, &fetcher::fetch_missing})
      if (auto done = (this->*one)(*choice); !done)
        return named(done.error());
    auto out = entry_of(all_.version, *choice);
    if (out) {
      out->bytes_fetched = fetched_;
      out->broken = std::move(broken_);
      out->unchecked = std::move(unchecked_);
    }
    return out;
  }

  name_list offered() const {
    name_list out;
    for (const auto& file : all_.files)
      out.push_back(file.name);
    return out;
  }

  using step = result<void> (fetcher::*)(const file_choice&);

  result<void> complete(const file_choice& choice) {
    for (const auto& name : choice.names) {
      auto file = std::find_if(all_.files.begin(), all_.files.end(),
                               [&](const auto& x) { return x.name == name; });
      auto is_known = !settings_.verify && !file->blob.empty() &&
                      source_.cache.has_blob(*file);
      if (!is_known)
        if (auto done = source_.from->complete(session_, all_, *file); !done)
          return done;
      files_.push_back(*file);
      now_.bytes_total += file->size;
    }
    return source_.cache.make_directories(all_.version);
  }

  /// If so wished: what is there and is not what the origin says is missing
  /// from now on.
  result<void> drop_broken(const file_choice&) {
    if (!settings_.verify)
      return {};
    for (const auto& file : files_) {
      if (source_.cache.has_blob(file)) {
        if (auto checked = check(file); !checked)
          return checked;
      } else if (source_.cache.blob_inode(file) != 0) {
        broken_.push_back(file.name); // of another size
      }
      finished_ += file.size;
    }
    finished_ = 0;
    return {};
  }

  result<void> check(const remote_file& file) {
    now_.file = file.name;
    if (file.check.by == content_check::kind::size_only)
      unchecked_.push_back(file.name);
    std::uint64_t done = 0;
    const auto inode = source_.cache.blob_inode(file);
    auto fine = check_content(source_.cache.blob(file), file.size, file.check,
                              [&](std::uint64_t bytes) {
                                done += bytes;
                                tell(fetch_progress::stage::checking, done);
                                return !watch_.is_cancelled();
                              });
    if (fine || (fine.error().code != errc::corrupt &&
                 fine.error().code != errc::io)) // a bad disk
      return fine;
    broken_.push_back(file.name);
    return drop(file, inode);
  }

  /// Unless another process is about to replace it, or has.
  result<void> drop(const remote_file& file, std::uint64_t inode) {
    auto lock = file_lock::try_take(source_.cache.lock(file));
    if (!lock)
      return lock.error();
    if (!*lock || source_.cache.blob_inode(file) != inode)
      return {};
    return source_.cache.drop_blob(file);
  }

  result<void> make_room(const file_choice&) {
    std::uint64_t missing = 0;
    for (const auto& file : files_)
      if (!source_.cache.has_blob(file)) {
        auto there = bytes_on_disk(source_.cache.partial(file));
        missing += file.size - std::min(file.size, there);
      }
    struct statvfs disk {};
    const auto& root = source_.cache.root();
    if (missing == 0 || ::statvfs(root.c_str(), &disk) != 0)
      return {};
    auto free = std::uint64_t{disk.f_bavail} * disk.f_frsize;
    if (free >= missing)
      return {};
    return error{errc::limit,
                 fmt::format("{} are missing, but {} has room for {} only; "
                             "nothing was fetched",
                             megabytes(missing), root.string(),
                             megabytes(free))};
  }

  result<void> fetch_missing(const file_choice&) {
    for (const auto& file : files_) {
      now_.file = file.name;
      auto there = source_.cache.has_blob(file);
      if (!there)
        if (auto brought = bring(file); !brought)
          return brought;
      finished_ += file.size;
      tell(there ? fetch_progress::stage::there
                 : fetch_progress::stage::fetching,
           0);
    }
    for (const auto& file : files_)
      if (auto linked = source_.cache.link(all_.version, file); !linked)
        return linked;
    if (auto kept = source_.cache.set_offer(all_.version, offered()); !kept)
      return kept;
    if (is_version(source_.revision))
      return {};
    return source_.cache.set_ref(source_.revision, all_.version);
  }

  /// Makes one blob be there.
  result<void> bring(const remote_file& file) {
    auto lock = wait_for_lock(file);
    if (!lock)
      return lock.error();
    if (!*lock)
      return {}; // another process brought it
    transfer how{*source_.from, all_, settings_, watch_.is_cancelled,
                 [this](std::uint64_t done) {
                   tell(fetch_progress::stage::fetching, done);
                 }};
    auto fetched = download_blob(how, source_.cache, file);
    if (!fetched)
      return fetched.error();
    fetched_ += *fetched;
    return {};
  }

  /// The right to fetch a file; nothing if it is there meanwhile.
  result<std::optional<file_lock>> wait_for_lock(const remote_file& file) {
    auto moved_at = clock::now();
    std::uint64_t seen = 0;
    for (;;) {
      if (source_.cache.has_blob(file))
        return std::optional<file_lock>{};
      auto lock = file_lock::try_take(source_.cache.lock(file));
      if (!lock || (*lock && !source_.cache.has_blob(file)))
        return lock;
      auto done = partial_file::look(source_.cache.partial(file), file.size);
      if (done != seen)
        moved_at = clock::now();
      seen = done;
      tell(fetch_progress::stage::waiting, done);
      if (clock::now() - moved_at > stalls_waited * settings_.limits.stall_max)
        return error{errc::unavailable,
                     fmt::format("{}: another process holds {} and does not "
                                 "get on",
                                 file.name, source_.cache.lock(file).string())};
      if (!session_.pause(lock_period))
        return error{errc::cancelled, "interrupted"};
    }
  }

  void tell(fetch_progress::stage stage, std::uint64_t done_of_file) {
    now_.now = stage;
    now_.bytes_done = finished_ + done_of_file;
    watch_.progress(now_);
  }

  std::string name_;
  source source_;
  wanted what_;
  const fetch_settings& settings_;
  const fetch_watch& watch_;
  http_session session_;
  listing all_;
  std::vector<remote_file> files_; ///< the chosen ones
  name_list broken_;
  name_list unchecked_;
  fetch_progress now_;
  std::uint64_t finished_ = 0; ///< bytes of files that are there
  std::uint64_t fetched_ = 0;
};

} // namespace

result<fetched_model> fetch_model(const model_reference& reference, wanted what,
                                  const fetch_settings& settings,
                                  const fetch_watch& watch) {
  if (const auto* path = std::get_if<fs::path>(&reference))
    return fetched_model{*path, {}, 0, {}};
  auto name = to_string(reference);
  if (const auto* hub = std::get_if<hub_reference>(&reference))
    return fetcher{name, source_of(*hub, settings), what, settings, watch}
        .run();
  return fetcher{name,
                 source_of(std::get<bucket_reference>(reference), settings),
                 what, settings, watch}
      .run();
}

} // namespace troupe::download
