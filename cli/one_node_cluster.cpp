#include "cli/one_node_cluster.hpp"

#include "actors/controller/controller.hpp"
#include "actors/controller/deployment.hpp"
#include "actors/controller/status_query.hpp"
#include "actors/node_agent/node_agent.hpp"
#include "actors/runtime/system_config.hpp"
#include "router/service.hpp"

#include <caf/all.hpp>
#include <fmt/format.h>

#include <unistd.h>

namespace troupe::cli {

namespace {

using std::chrono::milliseconds;

milliseconds to_milliseconds(double seconds) {
  return milliseconds{static_cast<std::int64_t>(seconds * 1000)};
}

router::options router_options(const one_node_cluster::options& from,
                               const runtime::credentials& tls) {
  router::options out;
  const auto& http = from.config.http;
  out.host = http.host;
  out.port = http.port;
  out.admin_port = from.admin_port;
  out.root_path = http.root_path;
  out.bounds.keep_alive = to_milliseconds(http.keep_alive_timeout_s);
  out.request_timeout = to_milliseconds(http.request_timeout_s.value_or(0));
  out.api_keys = from.config.troupe.api_keys;
  out.requests_max = from.config.troupe.max_requests_in_flight;
  out.tls = tls;
  out.access_log = from.config.logging.enable_access_log;
  for (const auto& application : from.config.applications)
    for (const auto& model : application.models)
      if (auto queued = model.deployment.max_queued_requests; queued > 0)
        out.table.waiting_max_of[{application.name, model.model_id}] =
            static_cast<std::size_t>(queued);
  return out;
}

std::vector<router::engine_load>
loads_of(const protocol::cluster_status& status) {
  std::vector<router::engine_load> out;
  for (const auto& model : status.models)
    for (const auto& replica : model.replicas)
      if (replica.phase == protocol::replica_phase::ready)
        out.push_back({model.application, model.model, replica.replica, "head",
                       replica.load});
  return out;
}

class cluster final : public one_node_cluster {
public:
  cluster(runtime::credentials tls, const runtime::system_options& system)
      : tls_(std::move(tls)), config_(system), system_(config_) {
    // nop
  }

  ~cluster() override {
    stop(milliseconds{0});
  }

  result<void> start(const options& from, runtime::authority issuer);

  std::uint16_t port() const override {
    return service_->port();
  }

  std::uint16_t admin_port() const override {
    return service_->admin_port();
  }

  result<protocol::cluster_status> status() override {
    return controller::status_now(system_, controller_);
  }

  bool stop(milliseconds time_max) override;

private:
  result<void> start_agent(const options& from, runtime::authority issuer);
  result<void> start_service(const options& from);
  result<void> deploy(const options& from);
  bool drain_agent(milliseconds time_max);

  runtime::credentials tls_;
  runtime::system_config config_;
  caf::actor_system system_;
  protocol::controller_actor controller_;
  protocol::node_agent_actor agent_;
  std::unique_ptr<router::service> service_;
};

result<void> cluster::start(const options& from, runtime::authority issuer) {
  auto store = controller::state_store::open(from.state_dir / "state.db");
  if (!store)
    return store.error();
  controller_ = controller::spawn_controller(system_, std::move(*store));
  if (auto done = start_service(from); !done)
    return done;
  if (auto done = start_agent(from, std::move(issuer)); !done)
    return done;
  return deploy(from);
}

result<void> cluster::start_agent(const options& from,
                                  runtime::authority issuer) {
  node_agent::node_agent_options agent{
      std::move(issuer), from.state_dir / "run" / "replicas"};
  agent.replica_logging.level = from.config.logging.level;
  agent.replica_logging.json = from.config.logging.json;
  auto spawned =
      node_agent::spawn_node_agent(system_, std::move(agent), controller_);
  if (!spawned)
    return spawned.error();
  agent_ = *spawned;
  return {};
}

result<void> cluster::start_service(const options& from) {
  auto asked = router_options(from, tls_);
  asked.loads = [this](auto done) {
    controller::query_status(system_, controller_, [done](auto status) {
      done(status ? loads_of(*status) : std::vector<router::engine_load>{});
    });
  };
  auto service = router::service::start(std::move(asked), system_, controller_);
  if (!service)
    return service.error();
  service_ = std::move(*service);
  service_->add_admin_route(
      "GET", "/api/status",
      [this](const http::request&, std::shared_ptr<http::reply> reply) {
        controller::query_status(system_, controller_, [reply](auto status) {
          if (status)
            reply->respond(200, {{"Content-Type", "application/json"}},
                           protocol::to_json(*status));
          else
            reply->respond(503, {{"Content-Type", "text/plain"}},
                           status.error().message);
        });
      });
  return {};
}

result<void> cluster::deploy(const options& from) {
  auto now = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  auto wanted = controller::to_deployment(
      from.config, from.cpu_only, static_cast<std::uint64_t>(now.count()));
  result<void> out;
  caf::scoped_actor self{system_};
  self->request(controller_, std::chrono::seconds{30},
                protocol::deploy_atom::value, controller::encode(wanted))
      .receive([](std::uint64_t) {},
               [&](const caf::error& reason) {
                 out = error{errc::io, "the deployment was not accepted: " +
                                           system_.render(reason)};
               });
  return out;
}

bool cluster::drain_agent(milliseconds time_max) {
  auto clean = false;
  caf::scoped_actor self{system_};
  self->request(agent_, time_max + std::chrono::seconds{3},
                protocol::drain_atom::value,
                static_cast<std::uint32_t>(time_max.count()))
      .receive([&](bool all) { clean = all; }, [](const caf::error&) {});
  return clean;
}

bool cluster::stop(milliseconds time_max) {
  auto clean = true;
  auto end = std::chrono::steady_clock::now() + time_max;
  if (service_) {
    clean = service_->stop(time_max);
    service_.reset();
  }
  if (agent_) {
    auto left = std::chrono::duration_cast<milliseconds>(
        end - std::chrono::steady_clock::now());
    clean &= drain_agent(std::max(left, milliseconds{500}));
    caf::anon_send<caf::message_priority::high>(
        caf::actor_cast<caf::actor>(agent_),
        caf::exit_msg{agent_.address(), caf::exit_reason::user_shutdown});
    agent_ = nullptr;
  }
  if (controller_) {
    caf::anon_send_exit(controller_, caf::exit_reason::user_shutdown);
    controller_ = nullptr;
  }
  return clean;
}

} // namespace

result<std::unique_ptr<one_node_cluster>>
one_node_cluster::start(options from) {
  auto issuer = runtime::authority::open(from.state_dir / "authority");
  if (!issuer)
    return issuer.error();
  auto tls = issuer->issue("head", from.state_dir / "run" / "head");
  if (!tls)
    return tls.error();
  runtime::system_options system;
  system.tls = *tls;
  auto out = std::make_unique<cluster>(*tls, system);
  if (auto done = out->start(from, std::move(*issuer)); !done)
    return done.error();
  return std::unique_ptr<one_node_cluster>{std::move(out)};
}

} // namespace troupe::cli
