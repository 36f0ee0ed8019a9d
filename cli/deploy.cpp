#include "config/serve_config.hpp"

#include "cli/ask_head.hpp"
#include "cli/load_config.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <unistd.h>

namespace troupe::cli {

namespace {

constexpr auto applications = "/api/serve/applications/";

/// How the models of a cluster are.
struct standing {
  std::map<std::string, std::string> failed; ///< why, by name
  std::string missing; ///< of the others, a line for each that lacks something
  bool some_come = false; ///< of the others one is being started
};

/// From GET /api/status.
standing stand(simdjson::dom::element all) {
  standing out;
  simdjson::dom::array models;
  if (all["models"].get(models) != simdjson::SUCCESS || models.size() == 0) {
    out.missing = "the cluster has no models\n";
    return out;
  }
  for (auto model : models) {
    auto status = text(model, "status");
    auto reason = text(model, "reason");
    // With a reason something is still missing, a second replica, say.
    if (status == "RUNNING" && reason.empty())
      continue;
    auto name =
        fmt::format("{}/{}", text(model, "application"), text(model, "model"));
    auto how =
        fmt::format("{}{}{}", status, reason.empty() ? "" : ": ", reason);
    out.some_come |= status == "DEPLOYING";
    if (status == "DEPLOY_FAILED")
      out.failed.emplace(name, how);
    else
      out.missing += fmt::format("{}: {}\n", name, how);
  }
  return out;
}

/// What replicas fetch and load; empty if nothing.
struct loading_work {
  std::string what;
  std::string how_far; ///< the same with percentages
};

/// From GET /api/status.
loading_work loading(simdjson::dom::element all) {
  simdjson::dom::array models;
  loading_work out;
  if (all["models"].get(models) != simdjson::SUCCESS)
    return out;
  for (auto model : models) {
    simdjson::dom::array replicas;
    if (model["replicas"].get(replicas) != simdjson::SUCCESS)
      continue;
    for (auto replica : replicas) {
      std::uint64_t done = 0;
      std::uint64_t total = 0;
      if (text(replica, "phase") != "loading" ||
          replica["bytes_done"].get(done) != simdjson::SUCCESS ||
          replica["bytes_total"].get(total) != simdjson::SUCCESS || total == 0)
        continue;
      auto doing = text(replica, "reason");
      auto what = fmt::format(
          "{}{}: {}", out.what.empty() ? "" : ", ", text(replica, "replica"),
          doing.empty() ? std::string_view{"loading"} : doing);
      out.what += what;
      out.how_far += fmt::format("{} {:.0f} %", what,
                                 100.0 * static_cast<double>(done) /
                                     static_cast<double>(total));
    }
  }
  return out;
}

/// Says how it gets on: in place in a terminal, else a line whenever another
/// model or file is at work.
class waiting_line {
public:
  void show(simdjson::dom::element all) {
    auto now = loading(all);
    if (terminal_ && now.how_far != shown_.how_far)
      fmt::print("\r\033[K{}", now.how_far);
    else if (!terminal_ && !now.what.empty() && now.what != shown_.what)
      fmt::print("{}\n", now.what);
    shown_ = now;
    std::fflush(stdout);
  }

  /// Makes room for another line.
  void clear() {
    if (terminal_ && !shown_.how_far.empty())
      fmt::print("\r\033[K");
    shown_.how_far.clear();
    std::fflush(stdout);
  }

private:
  bool terminal_ = ::isatty(STDOUT_FILENO) == 1;
  loading_work shown_;
};

/// Waits until everything runs, or something has failed and nothing else is
/// being started, or the time is over. The head keeps what it was told, so one
/// that is away is waited for too.
int wait_until_running(const deploy_arguments& args) {
  auto head = place_of(args.where);
  if (!head)
    return 1;
  using clock = std::chrono::steady_clock;
  auto end = clock::now() + std::chrono::duration_cast<clock::duration>(
                                std::chrono::duration<double>{args.wait_max_s});
  std::string why;
  std::set<std::string> told;
  auto is_away = false;
  waiting_line line;
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds{100});
    auto body = try_head(*head, "GET", "/api/status");
    if (!body) {
      why = body.error().message + "\n";
      if (body.error().code != errc::unavailable)
        break;
      if (!is_away) {
        line.clear();
        fmt::print(stderr, "{}; waiting for it\n", body.error().message);
      }
      is_away = true;
      continue;
    }
    is_away = false;
    simdjson::dom::parser parser;
    simdjson::dom::element all;
    if (parser.parse(*body).get(all) != simdjson::SUCCESS) {
      fmt::print(stderr, "the answer cannot be read\n");
      return 1;
    }
    auto now = stand(all);
    why = now.missing;
    for (const auto& [name, how] : now.failed)
      if (told.insert(name).second) {
        line.clear();
        fmt::print(stderr, "{}: {}\n", name, how);
      }
    if (now.failed.empty() && now.missing.empty()) {
      line.clear();
      fmt::print("all models run\n");
      return 0;
    }
    if (!now.failed.empty() && !now.some_come)
      break;
    line.show(all);
  } while (clock::now() < end);
  line.clear();
  fmt::print(stderr, "{}", why);
  return 1;
}

} // namespace

int deploy(const deploy_arguments& args) {
  auto loaded = load_config(args.config, troupe::config::purpose::deploy);
  if (!report(loaded.findings))
    return 2;
  if (!ask_head(args.where, "PUT", applications,
                troupe::config::to_json(args.config)))
    return 1;
  fmt::print("deployed {}\n", args.config.string());
  return args.wait ? wait_until_running(args) : 0;
}

} // namespace troupe::cli
