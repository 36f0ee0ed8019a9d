#include "cli/commands.hpp"
#include "engine/weights/download/fetch_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <unistd.h>

namespace troupe::cli {

namespace {

using download::fetch_progress;
using clock = std::chrono::steady_clock;

volatile std::sig_atomic_t interrupted = 0;

double megabytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

/// What a pull shows on standard error: a bar that moves in a terminal, else a
/// line per file and tenth.
class pull_display {
public:
  explicit pull_display(bool terminal) : terminal_(terminal) {
    // nop
  }

  void show(const fetch_progress& now) {
    if (now.now == fetch_progress::stage::asking || now.bytes_total == 0)
      return;
    if (now.now == fetch_progress::stage::there && !drawn_)
      return;
    auto is_checking = now.now == fetch_progress::stage::checking;
    if (!shown_ || was_checking_ != is_checking) {
      begin_ = clock::now();
      done_at_begin_ = now.bytes_done;
    }
    shown_ = true;
    was_checking_ = is_checking;
    if (terminal_)
      draw(now);
    else
      print(now);
  }

  /// False if all was there, as far as one knows.
  bool shown() const {
    return shown_;
  }

  /// The terminal's cursor stands on a line of its own afterwards.
  void end() {
    if (drawn_)
      fmt::print(stderr, "\n");
  }

private:
  static std::string_view doing(const fetch_progress& now) {
    switch (now.now) {
    case fetch_progress::stage::checking:
      return "check";
    case fetch_progress::stage::waiting:
      return "another process fetches";
    default:
      return "fetch";
    }
  }

  static double share(const fetch_progress& now) {
    return static_cast<double>(now.bytes_done) /
           static_cast<double>(now.bytes_total);
  }

  static std::string amounts(const fetch_progress& now) {
    return fmt::format("{:.1f} of {:.1f} MB", megabytes(now.bytes_done),
                       megabytes(now.bytes_total));
  }

  void draw(const fetch_progress& now) {
    constexpr std::size_t width = 30;
    auto full = static_cast<std::size_t>(share(now) * width);
    auto seconds = std::chrono::duration<double>(clock::now() - begin_).count();
    auto came = now.bytes_done - std::min(now.bytes_done, done_at_begin_);
    fmt::print(stderr, "\r\033[K[{:=<{}}{:<{}}] {}, {:.1f} MB/s  {} {}", "",
               full, "", width - full, amounts(now),
               seconds > 0 ? megabytes(came) / seconds : 0.0, doing(now),
               now.file);
    std::fflush(stderr);
    drawn_ = true;
  }

  void print(const fetch_progress& now) {
    auto tenth = static_cast<int>(share(now) * 10);
    auto what = fmt::format("{} {}", doing(now), now.file);
    if (what == what_ && tenth == tenth_)
      return;
    what_ = what;
    tenth_ = tenth;
    fmt::print(stderr, "{}: {}\n", what, amounts(now));
  }

  bool terminal_;
  bool shown_ = false;
  bool drawn_ = false;
  bool was_checking_ = false;
  clock::time_point begin_;
  std::uint64_t done_at_begin_ = 0;
  std::string what_;
  int tenth_ = -1;
};

result<download::model_reference> reference_of(const pull_arguments& args) {
  auto out = download::parse_model_reference(args.model);
  if (!out)
    return out;
  if (std::holds_alternative<std::filesystem::path>(*out))
    return error{
        errc::invalid_argument,
        fmt::format("\"{}\" is a path: there is nothing to fetch", args.model)};
  if (args.revision.empty())
    return out;
  auto* hub = std::get_if<download::hub_reference>(&*out);
  if (!hub)
    return error{errc::invalid_argument,
                 "--revision: a bucket has no revisions"};
  hub->revision = args.revision;
  out = download::parse_model_reference(to_string(*out));
  if (out && !std::holds_alternative<download::hub_reference>(*out))
    return error{errc::invalid_argument,
                 fmt::format("--revision: \"{}\" is none", args.revision)};
  return out;
}

result<download::fetch_settings> settings_of(const pull_arguments& args) {
  auto out = download::read_fetch_settings([&](const char* name) {
    auto is_endpoint = std::string_view{name} == "HF_ENDPOINT";
    return is_endpoint && !args.endpoint.empty()
               ? args.endpoint
               : download::process_environment(name);
  });
  if (out)
    out->verify = args.verify;
  return out;
}

/// What a pull found, in sentences.
void tell(const std::string& model, const download::fetched_model& found,
          bool shown, bool verified) {
  for (const auto& name : found.broken)
    fmt::print(stderr, "{} was broken and was fetched anew\n", name);
  for (const auto& name : found.unchecked)
    fmt::print(stderr, "{}: no hash is known, its size alone was compared\n",
               name);
  if (!found.note.empty())
    fmt::print(stderr, "{}\n", found.note);
  else if (verified && found.bytes_fetched == 0 && found.unchecked.empty())
    fmt::print(stderr, "{} is there and whole\n", model);
  else if (!shown)
    fmt::print(stderr, "{} is there already\n", model);
}

} // namespace

int pull(const pull_arguments& args) {
  auto fail = [](const error& why, int status) {
    fmt::print(stderr, "{}\n", why.message);
    return status;
  };
  auto reference = reference_of(args);
  if (!reference)
    return fail(reference.error(), 2);
  auto settings = settings_of(args);
  if (!settings)
    return fail(settings.error(), 2);
  std::signal(SIGPIPE, SIG_IGN); // a connection that ends says so otherwise
  for (int number : {SIGINT, SIGTERM, SIGHUP})
    std::signal(number, [](int) { interrupted = 1; });
  pull_display display{::isatty(STDERR_FILENO) == 1};
  auto fetched =
      download::fetch_model(*reference, download::wanted::model, *settings,
                            {[&](const auto& now) { display.show(now); },
                             [] { return interrupted != 0; }});
  display.end();
  if (!fetched && fetched.error().code == errc::cancelled)
    return fail({errc::cancelled, "interrupted; the next pull of it goes on "
                                  "from here"},
                1);
  if (!fetched)
    return fail(fetched.error(), 1);
  tell(to_string(*reference), *fetched, display.shown(), args.verify);
  fmt::print("{}\n", fetched->path.string());
  return 0;
}

} // namespace troupe::cli
