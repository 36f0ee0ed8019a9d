#include "cli/commands.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <fmt/format.h>
#include <simdjson.h>

#include <optional>
#include <vector>

namespace troupe::cli {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

/// The body of GET /api/status; empty with a message on stderr.
std::optional<std::string> fetch(const status_arguments& args) {
  constexpr std::chrono::seconds time_max{5};
  constexpr std::uint64_t body_bytes_max = 64u << 20;
  beast::error_code code;
  auto address = asio::ip::make_address(
      args.admin_host == "localhost" ? "127.0.0.1" : args.admin_host, code);
  auto where = fmt::format("{}:{}", args.admin_host, args.admin_port);
  if (code) {
    fmt::print(stderr, "{}: not a numeric address\n", args.admin_host);
    return std::nullopt;
  }
  asio::io_context io;
  beast::tcp_stream stream{io};
  beast::flat_buffer buffer;
  http::request<http::empty_body> request{http::verb::get, "/api/status", 11};
  request.set(http::field::host, where);
  http::response_parser<http::string_body> response;
  response.body_limit(body_bytes_max);
  auto keep = [&](beast::error_code ec, auto...) { code = ec; };
  // One step after the other, each within the time limit.
  auto step = [&](auto start) {
    if (code)
      return;
    stream.expires_after(time_max);
    start();
    io.restart();
    io.run();
  };
  asio::ip::tcp::endpoint there{address, args.admin_port};
  step([&] { stream.async_connect(there, keep); });
  if (code) {
    fmt::print(stderr,
               "no cluster answers on {} ({}); is `troupe run` running, and "
               "with this --admin-port?\n",
               where, code.message());
    return std::nullopt;
  }
  step([&] { http::async_write(stream, request, keep); });
  step([&] { http::async_read(stream, buffer, response, keep); });
  if (code || response.get().result() != http::status::ok) {
    fmt::print(stderr, "{} answered with an error ({})\n", where,
               code ? code.message()
                    : std::to_string(response.get().result_int()));
    return std::nullopt;
  }
  return std::move(response.get().body());
}

std::string_view text(simdjson::dom::element object, std::string_view key) {
  std::string_view out;
  return object[key].get(out) == simdjson::SUCCESS ? out : std::string_view{};
}

std::uint64_t number(simdjson::dom::element object, std::string_view key) {
  std::uint64_t out = 0;
  return object[key].get(out) == simdjson::SUCCESS ? out : 0;
}

std::vector<simdjson::dom::element> items(simdjson::dom::element object,
                                          std::string_view key) {
  simdjson::dom::array list;
  if (object[key].get(list) != simdjson::SUCCESS)
    return {};
  return {list.begin(), list.end()};
}

void print_replica(simdjson::dom::element replica) {
  fmt::print("    {} {}", text(replica, "replica"), text(replica, "phase"));
  if (number(replica, "pid") != 0)
    fmt::print(", pid {}", number(replica, "pid"));
  if (number(replica, "restarts") != 0)
    fmt::print(", {} restarts", number(replica, "restarts"));
  if (text(replica, "phase") == "loading")
    fmt::print(", {} of {} MB", number(replica, "bytes_done") / 1'000'000,
               number(replica, "bytes_total") / 1'000'000);
  if (text(replica, "phase") == "ready") {
    simdjson::dom::element load;
    if (replica["load"].get(load) != simdjson::SUCCESS)
      return;
    auto total = number(load, "kv_blocks_total");
    auto used = total - number(load, "kv_blocks_free");
    fmt::print(", {} running, {} waiting, KV {}/{} blocks, {}",
               number(load, "running"), number(load, "waiting"), used, total,
               text(replica, "device"));
  }
  if (!text(replica, "reason").empty())
    fmt::print(": {}", text(replica, "reason"));
  fmt::print("\n");
}

void print_status(simdjson::dom::element all) {
  fmt::print("Nodes\n");
  for (auto node : items(all, "nodes")) {
    fmt::print("  {}: {} CPUs, {} MiB", text(node, "node"),
               number(node, "cpus"), number(node, "memory_bytes") >> 20);
    if (number(node, "gpus") == 0)
      fmt::print(", no GPU\n");
    else
      fmt::print(", {} GPUs ({})\n", number(node, "gpus"),
                 text(node, "accelerator_type"));
  }
  fmt::print("Models\n");
  for (auto model : items(all, "models")) {
    fmt::print("  {}: {}, {} of {} replicas ready", text(model, "model"),
               text(model, "status"), number(model, "replicas_ready"),
               number(model, "replicas_wanted"));
    if (!text(model, "reason").empty())
      fmt::print(" ({})", text(model, "reason"));
    fmt::print("\n");
    if (!text(model, "note").empty())
      fmt::print("    note: {}\n", text(model, "note"));
    for (auto replica : items(model, "replicas"))
      print_replica(replica);
  }
}

} // namespace

int status(const status_arguments& args) {
  auto body = fetch(args);
  if (!body)
    return 1;
  if (args.json) {
    fmt::print("{}\n", *body);
    return 0;
  }
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  if (parser.parse(*body).get(all) != simdjson::SUCCESS) {
    fmt::print(stderr, "the answer cannot be read\n");
    return 1;
  }
  print_status(all);
  return 0;
}

} // namespace troupe::cli
