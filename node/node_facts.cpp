#include "node/node_facts.hpp"

#include "router/api/json_writer.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace troupe::node {

namespace {

std::filesystem::path facts_file(const std::filesystem::path& state_dir) {
  return state_dir / "node.json";
}

error failure(const std::filesystem::path& file) {
  return {errc::io, fmt::format("{} cannot be written: {}", file.string(),
                                std::strerror(errno))};
}

std::string text(simdjson::dom::element object, std::string_view key) {
  std::string_view out;
  return object[key].get(out) == simdjson::SUCCESS ? std::string{out}
                                                   : std::string{};
}

std::int64_t number(simdjson::dom::element object, std::string_view key) {
  std::int64_t out = 0;
  return object[key].get(out) == simdjson::SUCCESS ? out : 0;
}

std::uint16_t port(simdjson::dom::element object, std::string_view key) {
  return static_cast<std::uint16_t>(number(object, key));
}

} // namespace

std::string to_json(const node_facts& facts) {
  api::json_writer json;
  json.begin_object();
  json.key("pid").integer(facts.pid);
  json.key("node").text(facts.node);
  json.key("role").text(facts.role);
  json.key("address").text(facts.address);
  json.key("http_host").text(facts.http_host);
  json.key("admin_host").text(facts.admin_host);
  json.key("http_port").natural(facts.http_port);
  json.key("admin_port").natural(facts.admin_port);
  json.key("join_port").natural(facts.join_port);
  json.key("cluster_port").natural(facts.cluster_port);
  json.end_object();
  return json.take("\n");
}

result<node_facts> read_facts(const std::filesystem::path& state_dir) {
  auto file = facts_file(state_dir);
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  if (std::error_code code; !std::filesystem::exists(file, code))
    return error{errc::not_found,
                 "no node runs with the state directory " + state_dir.string()};
  if (parser.load(file.string()).get(all) != simdjson::SUCCESS)
    return error{errc::corrupt, file.string() + " cannot be read"};
  node_facts out;
  out.pid = number(all, "pid");
  out.node = text(all, "node");
  out.role = text(all, "role");
  out.address = text(all, "address");
  out.http_host = text(all, "http_host");
  out.admin_host = text(all, "admin_host");
  out.http_port = port(all, "http_port");
  out.admin_port = port(all, "admin_port");
  out.join_port = port(all, "join_port");
  out.cluster_port = port(all, "cluster_port");
  if (out.pid <= 0)
    return error{errc::corrupt, file.string() + " names no process"};
  return out;
}

result<void> write_facts(const std::filesystem::path& state_dir,
                         const node_facts& facts) {
  auto file = facts_file(state_dir);
  auto draft = file;
  draft += ".new";
  auto fd =
      ::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0)
    return failure(draft);
  auto bytes = to_json(facts);
  auto written = ::write(fd, bytes.data(), bytes.size());
  ::close(fd);
  if (written != static_cast<ssize_t>(bytes.size()) ||
      ::rename(draft.c_str(), file.c_str()) != 0)
    return failure(file);
  return {};
}

void remove_facts(const std::filesystem::path& state_dir) {
  std::error_code ignored;
  std::filesystem::remove(facts_file(state_dir), ignored);
}

} // namespace troupe::node
