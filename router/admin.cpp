#include "router/admin.hpp"

#include "router/api/json_writer.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace troupe::router {

namespace {

constexpr auto plain = "text/plain; charset=utf-8";

void fail(http::reply& reply, int status, std::string message,
          http::header_list more = {}) {
  more.emplace_back("content-type", "application/json");
  reply.respond(status, std::move(more),
                api::error_body({status, std::move(message),
                                 "invalid_request_error", "", ""}));
}

} // namespace

admin::admin(const edge& over, load_source loads,
             std::shared_ptr<router_gauges> gauges)
    : edge_(over), loads_(std::move(loads)), gauges_(std::move(gauges)) {
  add("GET", "/-/healthz",
      [this](http::request, std::shared_ptr<http::reply> reply) {
        health(*reply);
      });
  add("GET", "/-/routes",
      [this](http::request, std::shared_ptr<http::reply> reply) {
        routes(*reply);
      });
  add("GET", "/metrics",
      [this](http::request, std::shared_ptr<http::reply> reply) {
        metrics_text(reply);
      });
}

void admin::add(std::string method, std::string path, http::handler how) {
  std::lock_guard lock{mutex_};
  routes_[std::move(path)][std::move(method)] = std::move(how);
}

void admin::handle(http::request request, std::shared_ptr<http::reply> reply) {
  auto reads = request.method == "GET" || request.method == "HEAD";
  auto from_page = !request.header("origin").empty();
  if (!is_local_name(request.header("host")) || !same_origin(request) ||
      (from_page && !reads)) {
    fail(*reply, 403, "The admin side is not for pages of other origins.");
    return;
  }
  http::handler how;
  std::string allowed;
  {
    std::lock_guard lock{mutex_};
    auto path = find(request.path);
    if (path != routes_.end())
      for (auto& [method, handler] : path->second) {
        allowed += (allowed.empty() ? "" : ", ") + method;
        if (method == request.method)
          how = handler;
      }
  }
  if (how)
    how(std::move(request), std::move(reply));
  else if (allowed.empty())
    fail(*reply, 404, fmt::format("There is nothing at {}.", request.path));
  else
    fail(*reply, 405, fmt::format("This path takes {} only.", allowed),
         {{"allow", allowed}});
}

/// The path itself, else what takes one name in its last part, else the longest
/// that takes all below it.
admin::route_map::const_iterator admin::find(const std::string& path) const {
  auto found = routes_.find(path);
  auto slash = path.rfind('/');
  if (found == routes_.end())
    found = routes_.find(path.substr(0, slash + 1) + "*");
  while (found == routes_.end() && slash != std::string::npos && slash > 0) {
    found = routes_.find(path.substr(0, slash + 1) + "**");
    slash = path.rfind('/', slash - 1);
  }
  return found;
}

void admin::health(http::reply& reply) const {
  auto ok = edge_.ready();
  reply.respond(ok ? 200 : 503, {{"content-type", plain}},
                ok ? "success" : "no model is ready");
}

void admin::routes(http::reply& reply) const {
  std::map<std::string, std::string> applications;
  if (auto table = edge_.table())
    for (auto& model : table->models)
      applications[model.route_prefix] = model.application;
  api::json_writer json;
  json.begin_object();
  for (auto& [prefix, application] : applications)
    json.key(prefix).text(application);
  json.end_object();
  reply.respond(200, {{"content-type", "application/json"}}, json.take());
}

void admin::metrics_text(const std::shared_ptr<http::reply>& reply) const {
  auto answer = [counters = edge_.counters(), admitted = edge_.admitted(),
                 accounts = edge_.accounts(), gauges = gauges_,
                 reply](const cluster_load& loads) {
    reply->respond(
        200, {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}},
        counters->text(*gauges, admitted->inside(), loads, accounts->all()));
  };
  if (loads_)
    loads_(std::move(answer));
  else
    answer({});
}

} // namespace troupe::router
