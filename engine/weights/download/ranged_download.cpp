#include "engine/weights/download/ranged_download.hpp"

#include "engine/weights/download/partial_file.hpp"

#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <condition_variable>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

namespace troupe::download {

namespace {

namespace fs = std::filesystem;

/// How often the caller hears of progress.
constexpr milliseconds progress_period{100};

/// So many bytes in one try, and the tries are counted anew.
constexpr std::uint64_t progress_bytes = 1u << 20;

/// "bytes 5-9/200", as asked for.
bool is_range(std::string_view header, std::uint64_t begin, std::uint64_t end,
              std::uint64_t size) {
  return header == fmt::format("bytes {}-{}/{}", begin, end - 1, size);
}

/// All that the connections of one file share.
struct shared_work {
  shared_work(const transfer& how, const remote_file& file, partial_file& to)
      : how(how), file(file), to(to), done(to.bytes_done()) {
    // nop
  }

  const transfer& how;
  const remote_file& file;
  partial_file& to;
  std::atomic<std::uint64_t> done;       ///< of the file
  std::atomic<std::uint64_t> fetched{0}; ///< came over the network
  std::atomic<bool> over{false};         ///< failed or cancelled

  std::mutex mutex;
  std::condition_variable news;
  std::size_t next = 0;        ///< chunk to be begun
  std::size_t working = 0;     ///< connections
  std::optional<error> failed; ///< the first failure
  std::string etag;            ///< of the first answer; then of all

  void fail(error why) {
    std::lock_guard guard{mutex};
    if (!failed)
      failed = std::move(why);
    over = true;
  }

  /// The next chunk that lacks something.
  std::optional<std::size_t> take() {
    std::lock_guard guard{mutex};
    while (next < to.chunks() && to.is_done(next))
      ++next;
    if (over || next == to.chunks())
      return std::nullopt;
    return next++;
  }

  /// All ranges must be of one content.
  bool fits(std::string_view tag) {
    std::lock_guard guard{mutex};
    if (etag.empty())
      etag = tag;
    return tag.empty() || tag == etag;
  }
};

/// Puts the body of a ranged answer into its chunk.
class chunk_reader : public body_reader {
public:
  chunk_reader(shared_work& work, std::size_t chunk)
      : work_(work), chunk_(chunk) {
    // nop
  }

  result<void> begin(const http_response& head) override {
    auto& to = work_.to;
    auto begin = to.begin_of(chunk_) + to.done(chunk_);
    auto whole = to.end_of(chunk_) - to.begin_of(chunk_) == work_.file.size;
    auto length = head.header("content-length");
    auto fits =
        head.status == 206
            ? is_range(head.header("content-range"), begin, to.end_of(chunk_),
                       work_.file.size)
            : head.status == 200 && whole &&
                  (length.empty() || length == std::to_string(work_.file.size));
    if (!fits)
      return error{errc::io, "the answer is not the range that was asked for"};
    // One who knows no ranges sends all: then all is taken.
    if (head.status == 200 && begin != 0) {
      work_.done -= begin;
      if (auto anew = to.restart(chunk_); !anew)
        return anew;
    }
    if (!work_.fits(head.header("etag")))
      return error{errc::corrupt, "it changed while it was fetched"};
    return {};
  }

  result<void> take(std::string_view bytes) override {
    auto put = work_.to.append(chunk_, bytes);
    if (!put)
      return put;
    work_.done += bytes.size();
    work_.fetched += bytes.size();
    came_ += bytes.size();
    return {};
  }

  std::uint64_t came() const {
    return came_;
  }

private:
  shared_work& work_;
  std::size_t chunk_;
  std::uint64_t came_ = 0;
};

/// One connection, chunk after chunk.
class connection {
public:
  explicit connection(shared_work& work)
      : work_(work),
        session_(work.how.settings.limits, work.how.settings.ca_file,
                 [&work] { return work.over.load(); }) {
    // nop
  }

  void run() {
    while (auto chunk = work_.take())
      if (auto done = fetch(*chunk); !done) {
        work_.fail(done.error());
        return;
      }
  }

private:
  result<void> fetch(std::size_t chunk) {
    retry_pause pause{session_.limits()};
    while (!work_.to.is_done(chunk)) {
      chunk_reader reader{work_, chunk};
      auto answer = ask(chunk, reader);
      if (reader.came() >= progress_bytes)
        pause.reset();
      if (work_.to.is_done(chunk))
        break;
      std::string later;
      auto why = trouble(answer, later);
      if (why.code != errc::unavailable)
        return why;
      if (auto again = pause.wait(session_, why, later); !again)
        return again;
    }
    return {};
  }

  result<http_response> ask(std::size_t chunk, chunk_reader& reader) {
    const auto& to = work_.to;
    auto request = work_.how.from.request(work_.how.all, work_.file,
                                          to.begin_of(chunk) + to.done(chunk),
                                          to.end_of(chunk));
    if (!request)
      return request.error();
    return session_.send(*request, &reader);
  }

  /// Why a chunk is not whole yet.
  error trouble(const result<http_response>& answer, std::string& later) const {
    if (!answer)
      return answer.error();
    later = answer->header("retry-after");
    if (is_passing(answer->status))
      return status_error(*answer);
    if (answer->status / 100 == 2)
      return {errc::unavailable, "the answer was cut short"};
    return work_.how.from.explain(*answer);
  }

  shared_work& work_;
  http_session session_;
};

/// Runs the connections and tells of their progress until all have ended.
result<void> run_connections(shared_work& work) {
  std::vector<std::jthread> team;
  auto count = std::min<std::size_t>(
      std::max(1u, work.how.settings.limits.connections), work.to.chunks());
  work.working = count;
  for (std::size_t i = 0; i < count; ++i)
    team.emplace_back([&work] {
      connection{work}.run();
      std::lock_guard guard{work.mutex};
      --work.working;
      work.news.notify_all();
    });
  std::unique_lock lock{work.mutex};
  while (work.working > 0) {
    work.news.wait_for(lock, progress_period);
    lock.unlock();
    work.how.on_progress(work.done);
    if (work.how.is_cancelled())
      work.fail({errc::cancelled, "interrupted"});
    lock.lock();
  }
  if (work.failed)
    return *work.failed;
  return {};
}

/// The name of a file in front of what is wrong with it.
error about(const remote_file& file, const error& why) {
  return {why.code, why.message.find(file.name) == std::string::npos
                        ? file.name + ": " + why.message
                        : why.message};
}

/// From here on others see it.
result<void> publish(const model_cache& cache, const remote_file& file) {
  std::error_code why;
  fs::rename(cache.partial(file), cache.blob(file), why);
  if (why)
    return error{errc::io, fmt::format("{}: {}", cache.blob(file).string(),
                                       why.message())};
  int directory = ::open(cache.blob(file).parent_path().c_str(),
                         O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory >= 0) {
    ::fsync(directory); // an older kernel's refusal changes nothing
    ::close(directory);
  }
  return {};
}

/// One attempt at the whole file. errc::corrupt: it is worth one from nothing.
result<void> attempt(const transfer& how, const model_cache& cache,
                     const remote_file& file, std::uint64_t& fetched) {
  auto to = partial_file::open(cache.partial(file), file.size);
  if (!to)
    return to.error();
  shared_work work{how, file, *to};
  auto ran = run_connections(work);
  fetched += work.fetched;
  if (ran) {
    auto on_bytes = [&](std::uint64_t) { return !how.is_cancelled(); };
    ran = check_content(cache.partial(file), file.size, file.check, on_bytes);
  }
  if (!ran && ran.error().code == errc::corrupt) {
    std::error_code ignored;
    fs::remove(cache.partial(file), ignored);
  }
  if (!ran)
    return ran;
  return to->finish();
}

} // namespace

result<std::uint64_t> download_blob(const transfer& how,
                                    const model_cache& cache,
                                    const remote_file& file) {
  std::uint64_t fetched = 0;
  auto done = attempt(how, cache, file, fetched);
  if (!done && done.error().code == errc::corrupt)
    done = attempt(how, cache, file, fetched);
  if (done)
    done = publish(cache, file);
  if (!done)
    return about(file, done.error());
  return fetched;
}

} // namespace troupe::download
