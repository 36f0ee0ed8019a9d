#include "node/serve_api.hpp"

#include "actors/controller/deployment.hpp"
#include "actors/controller/status_query.hpp"
#include "actors/runtime/token.hpp"
#include "node/serve_details.hpp"
#include "node/serve_document.hpp"
#include "router/api/json_writer.hpp"

#include <caf/all.hpp>
#include <fmt/format.h>
#include <simdjson.h>

#include <atomic>
#include <chrono>

namespace troupe::node {

namespace {

using namespace std::chrono_literals;
using http_reply = std::shared_ptr<http::reply>;

constexpr auto applications_path = "/api/serve/applications";
constexpr std::string_view nodes_path = "/api/nodes/";
constexpr std::string_view scale_path = "/api/v1/applications/";
constexpr std::string_view deployments_part = "/deployments/";
constexpr std::string_view scale_part = "/scale";
/// Until the controller has stored something.
constexpr auto store_time = 30s;
constexpr auto answer_time = 5s;

void answer_json(const http_reply& reply, int status, std::string body) {
  reply->respond(status, {{"content-type", "application/json"}},
                 std::move(body));
}

void answer_error(const http_reply& reply, int status,
                  std::string_view message) {
  api::json_writer json;
  json.begin_object().key("error").begin_object();
  json.key("message").text(message);
  json.end_object().end_object();
  answer_json(reply, status, json.take());
}

void write_findings(api::json_writer& json,
                    const config::diagnostics& findings) {
  json.begin_array();
  for (const auto& one : findings.all()) {
    json.begin_object();
    json.key("kind").text(one.what == config::diagnostic::kind::error ? "error"
                                                                      : "note");
    json.key("path").text(one.path);
    json.key("line").integer(one.where.line);
    json.key("column").integer(one.where.column);
    json.key("message").text(one.message);
    json.end_object();
  }
  json.end_array();
}

void answer_refusal(const http_reply& reply,
                    const config::diagnostics& findings) {
  auto errors = findings.error_count();
  std::string message =
      fmt::format("{} error{} in the document", errors, errors == 1 ? "" : "s");
  for (const auto& one : findings.all())
    if (one.what == config::diagnostic::kind::error) {
      message += ": " + to_string(one);
      break;
    }
  api::json_writer json;
  json.begin_object().key("error").begin_object();
  json.key("message").text(message);
  json.key("findings");
  write_findings(json, findings);
  json.end_object().end_object();
  answer_json(reply, 400, json.take());
}

void answer_version(const http_reply& reply, std::uint64_t version,
                    const config::diagnostics& findings) {
  api::json_writer json;
  json.begin_object();
  json.key("version").natural(version);
  json.key("findings");
  write_findings(json, findings);
  json.end_object();
  answer_json(reply, 200, json.take());
}

/// Lets one change of the deployment be under way at a time: each may hold
/// some MB and a thread.
class change_turn {
public:
  /// Whoever holds it may change what is deployed, until it says so or the last
  /// copy is gone.
  class held {
  public:
    explicit held(std::shared_ptr<std::atomic<bool>> taken)
        : taken_(std::move(taken)) {
      // nop
    }
    held(const held&) = delete;
    held& operator=(const held&) = delete;
    ~held() {
      end();
    }

    /// Before the answer: who has that may ask for the next change at once.
    void end() {
      if (auto taken = std::exchange(taken_, nullptr))
        *taken = false;
    }

  private:
    std::shared_ptr<std::atomic<bool>> taken_;
  };
  using turn = std::shared_ptr<held>;

  /// Null while somebody else has it.
  turn take() {
    if (taken_->exchange(true))
      return nullptr;
    return std::make_shared<held>(taken_);
  }

private:
  std::shared_ptr<std::atomic<bool>> taken_ =
      std::make_shared<std::atomic<bool>>(false);
};

/// The handlers of the routes. They run on the router's threads and must not
/// block: each asks the controller by an actor of its own.
class serve_api : public std::enable_shared_from_this<serve_api> {
public:
  serve_api(caf::actor_system& system, serve_api_options options)
      : system_(system), options_(std::move(options)) {
    // nop
  }

  void status(const http_reply& reply) const {
    controller::query_status(
        system_, options_.controller, [reply](auto status) {
          if (status)
            answer_json(reply, 200, protocol::to_json(*status));
          else
            answer_error(reply, 503, status.error().message);
        });
  }

  void document(const http_reply& reply) const {
    with_deployment(reply, [reply](const controller::deployment& wanted) {
      answer_json(reply, 200, shown_document(wanted));
    });
  }

  void details(const http_reply& reply) const {
    with_deployment(reply, [self = shared_from_this(),
                            reply](const controller::deployment& wanted) {
      auto facts = self->options_.facts();
      controller::query_status(
          self->system_, self->options_.controller,
          [reply, wanted, facts](auto status) {
            if (status)
              answer_json(reply, 200, serve_details(wanted, *status, facts));
            else
              answer_error(reply, 503, status.error().message);
          });
    });
  }

  void deploy(http::request request, const http_reply& reply) {
    if (request.body.size() > document_bytes_max)
      return answer_error(reply, 413, "the document is larger than 4 MiB");
    auto turn = turns_.take();
    if (!turn)
      return busy(reply);
    // Reading a large document takes a while: on a thread of its own.
    system_.spawn<caf::detached>([options = options_,
                                  body = std::move(request.body), reply,
                                  turn](caf::event_based_actor* self) {
      auto read = read_document(body, "request", options.cpu_only,
                                runtime::seconds_now());
      if (!read.wanted) {
        turn->end();
        return answer_refusal(reply, read.findings);
      }
      auto findings =
          std::make_shared<config::diagnostics>(std::move(read.findings));
      self->request(options.controller, store_time,
                    protocol::deploy_atom::value,
                    controller::encode(*read.wanted))
          .then(
              [=](std::uint64_t version) {
                turn->end();
                answer_version(reply, version, *findings);
              },
              [=](const caf::error& why) {
                turn->end();
                not_stored(self->system(), reply, why);
              });
    });
  }

  void remove_all(const http_reply& reply) {
    auto turn = turns_.take();
    if (!turn)
      return busy(reply);
    remove("", reply, turn);
  }

  void remove_one(const std::string& name, const http_reply& reply) {
    auto turn = turns_.take();
    if (!turn)
      return busy(reply);
    with_deployment(reply, [self = shared_from_this(), name, reply,
                            turn](const controller::deployment& wanted) {
      for (const auto& one : wanted.applications)
        if (one.name == name)
          return self->remove(name, reply, turn);
      answer_error(reply, 404,
                   fmt::format("there is no application \"{}\"", name));
    });
  }

  /// `rest`: "APPLICATION/deployments/MODEL/scale"; a model's id may hold
  /// slashes, an application's name may not.
  void scale(const std::string& rest, const http::request& request,
             const http_reply& reply) const {
    auto name_end = rest.find(deployments_part);
    if (name_end == std::string::npos || !rest.ends_with(scale_part) ||
        name_end + deployments_part.size() >= rest.size() - scale_part.size())
      return answer_error(reply, 404, "not found");
    auto application = rest.substr(0, name_end);
    auto begin = name_end + deployments_part.size();
    auto model = rest.substr(begin, rest.size() - scale_part.size() - begin);
    auto replicas = wanted_replicas(request.body);
    if (!replicas)
      return answer_error(reply, 400, replicas.error().message);
    controller::scale_model(
        system_, options_.controller, application, model, *replicas,
        [reply, application, model](auto done) {
          if (!done)
            return answer_error(reply, status_of(done.error().code),
                                done.error().message);
          api::json_writer json;
          json.begin_object().key("message").text(fmt::format(
              "{}/{} is to have {} replicas", application, model, *done));
          json.key("target_num_replicas").natural(*done).end_object();
          answer_json(reply, 200, json.take());
        });
  }

  void revoke(const std::string& name, const http_reply& reply) const {
    if (name == options_.facts().node)
      return answer_error(reply, 400, name + " is the head itself");
    controller::revoke_node(
        system_, options_.controller, name, [name, reply](auto state) {
          if (!state)
            return answer_error(
                reply, state.error().code == errc::invalid_argument ? 400 : 503,
                state.error().message);
          api::json_writer json;
          json.begin_object().key("node").text(name);
          json.key("was").text(*state).end_object();
          answer_json(reply, 200, json.take());
        });
  }

private:
  /// 412, as Ray has it, where nobody outside may scale.
  static int status_of(errc code) {
    switch (code) {
    case errc::not_found:
      return 404;
    case errc::invalid_argument:
      return 412;
    case errc::limit:
      return 400;
    default:
      return 503;
    }
  }

  static result<std::uint32_t> wanted_replicas(const std::string& body) {
    constexpr std::string_view form =
        "the body must be {\"target_num_replicas\": N}, N from 0 to 4096";
    simdjson::dom::parser parser;
    simdjson::dom::element document;
    std::uint64_t out = 0;
    simdjson::dom::object members;
    if (parser.parse(body).get(document) != simdjson::SUCCESS ||
        document.get(members) != simdjson::SUCCESS || members.size() != 1 ||
        members["target_num_replicas"].get(out) != simdjson::SUCCESS ||
        out > 0xFFFF'FFFF)
      return error{errc::invalid_argument, std::string{form}};
    return static_cast<std::uint32_t>(out);
  }

  static void busy(const http_reply& reply) {
    reply->respond(503,
                   {{"content-type", "application/json"}, {"retry-after", "1"}},
                   R"({"error":{"message":"another change is under way"}})");
  }

  static void not_stored(caf::actor_system& system, const http_reply& reply,
                         const caf::error& why) {
    answer_error(reply, 503,
                 "the change was not stored: " + system.render(why));
  }

  void remove(const std::string& name, const http_reply& reply,
              const change_turn::turn& turn) const {
    system_.spawn([controller = options_.controller, name, reply,
                   turn](caf::event_based_actor* self) {
      self->request(controller, store_time, protocol::delete_atom::value, name)
          .then(
              [reply, turn](std::uint64_t version) {
                turn->end();
                answer_version(reply, version, {});
              },
              [self, reply, turn](const caf::error& why) {
                turn->end();
                not_stored(self->system(), reply, why);
              });
    });
  }

  /// Asks what is deployed; an error is answered here.
  void with_deployment(
      const http_reply& reply,
      std::function<void(const controller::deployment&)> done) const {
    system_.spawn([controller = options_.controller, reply,
                   done = std::move(done)](caf::event_based_actor* self) {
      self->request(controller, answer_time, protocol::config_atom::value)
          .then(
              [reply, done](const codec::bytes& record) {
                if (auto wanted = controller::decode_deployment(record))
                  done(*wanted);
                else
                  answer_error(reply, 500, wanted.error().message);
              },
              [reply](const caf::error&) {
                answer_error(reply, 503, "the controller does not answer");
              });
    });
  }

  caf::actor_system& system_;
  serve_api_options options_;
  change_turn turns_;
};

} // namespace

void add_serve_api(router::service& service, caf::actor_system& system,
                   serve_api_options options) {
  auto api = std::make_shared<serve_api>(system, std::move(options));
  auto add = [&](std::string method, std::string path, auto answer) {
    service.add_admin_route(
        std::move(method), std::move(path),
        [api, answer](http::request request, http_reply reply) {
          answer(*api, std::move(request), reply);
        });
  };
  add("GET", "/api/status",
      [](serve_api& to, auto&&, const http_reply& reply) { to.status(reply); });
  add("GET", "/api/config", [](serve_api& to, auto&&, const http_reply& reply) {
    to.document(reply);
  });
  add("DELETE", std::string{nodes_path} + "*",
      [](serve_api& to, http::request request, const http_reply& reply) {
        to.revoke(request.path.substr(nodes_path.size()), reply);
      });
  add("POST", std::string{scale_path} + "**",
      [](serve_api& to, http::request request, const http_reply& reply) {
        to.scale(request.path.substr(scale_path.size()), request, reply);
      });
  const std::string one = applications_path;
  for (const auto& path : {one, one + "/"}) {
    add("GET", path, [](serve_api& to, auto&&, const http_reply& reply) {
      to.details(reply);
    });
    add("PUT", path,
        [](serve_api& to, http::request request, const http_reply& reply) {
          to.deploy(std::move(request), reply);
        });
    add("DELETE", path, [](serve_api& to, auto&&, const http_reply& reply) {
      to.remove_all(reply);
    });
  }
  add("DELETE", one + "/*",
      [](serve_api& to, http::request request, const http_reply& reply) {
        constexpr auto front = std::string_view{applications_path}.size() + 1;
        to.remove_one(request.path.substr(front), reply);
      });
}

} // namespace troupe::node
