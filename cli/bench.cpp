#include "cli/commands.hpp"
#include "client/load.hpp"
#include "client/models.hpp"

#include <fmt/format.h>

#include <unistd.h>

namespace troupe::cli {

namespace {

/// Answers under way at a time in an open loop, if not given.
constexpr std::uint32_t open_loop_concurrency = 1024;

/// What a shell says of a program that SIGINT ended.
constexpr int interrupted_status = 130;

result<client::load_plan> plan_of(const bench_arguments& args) {
  auto where = client::parse_service_url(args.url);
  if (!where)
    return where.error();
  auto model = client::choose_model(*where, args.api_key, args.model);
  if (!model)
    return model.error();
  client::load_plan out;
  out.where = *where;
  out.api_key = args.api_key;
  out.model = *model;
  out.rate = args.rate;
  out.concurrency = args.concurrency > 0 ? args.concurrency
                    : args.rate > 0      ? open_loop_concurrency
                                         : 1;
  out.requests = args.requests;
  out.time_max = std::chrono::duration<double>{args.time_max_s};
  out.prompt_words = args.prompt_words;
  out.max_tokens = args.max_tokens;
  out.seed = args.seed;
  return out;
}

} // namespace

int bench(const bench_arguments& args) {
  auto plan = plan_of(args);
  if (!plan) {
    fmt::print(stderr, "{}\n", plan.error().message);
    return plan.error().code == errc::invalid_argument ? 2 : 1;
  }
  bool moving = isatty(STDERR_FILENO);
  auto result = client::run_load(*plan, [&](std::uint64_t over) {
    if (moving)
      fmt::print(stderr, "\r{} of {} requests", over, plan->requests);
  });
  if (moving)
    fmt::print(stderr, "\r\033[K");
  fmt::print("{}", args.json ? client::to_json(*plan, result)
                             : client::to_table(*plan, result));
  if (result.interrupted)
    return interrupted_status;
  return result.failed == 0 && result.answered > 0 ? 0 : 1;
}

} // namespace troupe::cli
