#include "config/serve_config.hpp"

#include "cli/ask_head.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <chrono>
#include <thread>

namespace troupe::cli {

namespace {

constexpr auto applications = "/api/serve/applications/";

enum class outcome { done, failed, under_way };

/// How the applications stand; what is not well goes to `why`.
outcome judge(simdjson::dom::element all, std::string& why) {
  simdjson::dom::object each;
  if (all["applications"].get(each) != simdjson::SUCCESS)
    return outcome::under_way;
  auto out = outcome::done;
  why.clear();
  for (auto [name, application] : each) {
    auto status = text(application, "status");
    // With a message something is still missing, a second replica, say.
    if (status == "RUNNING" && text(application, "message").empty())
      continue;
    why += fmt::format("{}: {}{}{}\n", name, status,
                       text(application, "message").empty() ? "" : ": ",
                       text(application, "message"));
    if (status == "DEPLOY_FAILED")
      out = outcome::failed;
    else if (out == outcome::done)
      out = outcome::under_way;
  }
  return out;
}

/// Waits until everything runs, something has failed, or the time is over.
int wait_until_running(const deploy_arguments& args) {
  using clock = std::chrono::steady_clock;
  auto end = clock::now() + std::chrono::duration_cast<clock::duration>(
                                std::chrono::duration<double>{args.wait_max_s});
  std::string why;
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds{100});
    auto body = ask_head(args.where, "GET", applications);
    if (!body)
      return 1;
    simdjson::dom::parser parser;
    simdjson::dom::element all;
    if (parser.parse(*body).get(all) != simdjson::SUCCESS) {
      fmt::print(stderr, "the answer cannot be read\n");
      return 1;
    }
    auto now = judge(all, why);
    if (now == outcome::done) {
      fmt::print("all models run\n");
      return 0;
    }
    if (now == outcome::failed)
      break;
  } while (clock::now() < end);
  fmt::print(stderr, "{}", why);
  return 1;
}

} // namespace

int deploy(const deploy_arguments& args) {
  auto loaded =
      troupe::config::load(args.config, troupe::config::purpose::deploy);
  for (const auto& finding : loaded.findings.all())
    fmt::print(stderr, "{}\n", to_string(finding));
  if (loaded.findings.has_errors())
    return 2;
  if (!ask_head(args.where, "PUT", applications,
                troupe::config::to_json(args.config)))
    return 1;
  fmt::print("deployed {}\n", args.config.string());
  return args.wait ? wait_until_running(args) : 0;
}

} // namespace troupe::cli
