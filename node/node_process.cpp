#include "node/node_process.hpp"

#include "actors/controller/controller.hpp"
#include "actors/controller/status_query.hpp"
#include "actors/node_agent/node_agent.hpp"
#include "actors/runtime/join.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/listen_address.hpp"
#include "actors/runtime/log.hpp"
#include "actors/runtime/revocations.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "actors/runtime/system_config.hpp"
#include "actors/runtime/token.hpp"
#include "autoscaler/autoscaler.hpp"
#include "node/bring_nodes.hpp"
#include "node/public_side.hpp"
#include "node/serve_api.hpp"
#include "node/state_directory.hpp"
#include "router/service.hpp"

#include <boost/asio/ip/address.hpp>
#include <caf/all.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <utility>

namespace troupe::node {

namespace {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

constexpr auto join_time = 10s;
/// For the head's first word on what this node is to do.
constexpr auto first_word_time = 10s;
/// From a refusal on: one that has died with this name may be there for the
/// head a moment longer.
constexpr auto refused_time = 3s;
/// Between two looks whether there is still something to wait for.
constexpr auto look_time = 200ms;
/// For answers under way when a listener closes, or a node whose head cannot be
/// asked ends; Ray's default of graceful_shutdown_timeout_s.
constexpr auto usual_grace = 20s;
constexpr auto actor_end_time = 10s;
/// For workers of a provider to end in order when the head ends.
constexpr auto workers_end_min = 5s;

bool is_loopback(const std::string& host) {
  boost::system::error_code code;
  auto address = boost::asio::ip::make_address(host, code);
  return host == "localhost" || (!code && address.is_loopback());
}

void warn_of_open_listeners(const node_options& options) {
  if (!is_loopback(options.http.host))
    spdlog::warn("the OpenAI API listens on {} without TLS: whoever reaches it "
                 "can read and write there; set troupe.api_keys, put a TLS "
                 "proxy in front",
                 options.http.host);
  if (!is_loopback(options.admin.host))
    spdlog::warn("the admin listener is on {}: whoever reaches it can change "
                 "what runs",
                 options.admin.host);
}

router::cluster_load load_of(const protocol::cluster_status& status) {
  router::cluster_load out;
  for (const auto& model : status.models) {
    out.models.push_back({model.application, model.model, model.replicas_wanted,
                          model.replicas_ready});
    for (const auto& replica : model.replicas)
      if (replica.phase == protocol::replica_phase::ready)
        out.replicas.push_back({model.application, model.model, replica.replica,
                                replica.node, replica.load, replica.gpus});
  }
  for (const auto& one : status.nodes)
    out.nodes.push_back(
        {one.node.node, one.alive, one.node.resources, one.used});
  return out;
}

/// The newest answer of the head to this node's wish to join, which its agent
/// logs.
class last_welcome {
public:
  void hear(const protocol::node_welcome& welcome) {
    std::lock_guard guard{mutex_};
    refusal_ = welcome.accepted ? std::string{} : welcome.reason;
  }

  std::string refusal() const {
    std::lock_guard guard{mutex_};
    return refusal_;
  }

private:
  mutable std::mutex mutex_;
  std::string refusal_;
};

class running_node final : public node_process {
public:
  running_node(node_options options, std::unique_ptr<state_lock> lock,
               runtime::credentials tls, const runtime::system_options& system)
      : options_(std::move(options)), lock_(std::move(lock)),
        tls_(std::move(tls)), config_(system), system_(config_) {
    // nop
  }

  ~running_node() override {
    provider_.reset(); // a head that could not start takes nobody along
    stop(0ms);
  }

  result<void> start_head(const head_role&, const runtime::authority&);
  result<void> start_worker(const runtime::membership&);

  node_facts facts() const override;
  result<protocol::cluster_status> status() override;
  std::optional<error> shut_out() const override;
  milliseconds patience() override;
  bool stop(milliseconds time_max) override;

private:
  result<void> start_controller(const head_role&, const runtime::authority&);
  result<void> start_service();
  result<void> start_agent(node_agent::head_place);
  result<void> start_entrance(const entrance&, const runtime::authority&);
  result<void> wait_until_settled();
  void start_autoscaler(const head_role&, const runtime::authority&);
  std::thread end_workers(milliseconds time_max);
  void stop_agent(milliseconds time_max, bool& clean);

  node_options options_;
  std::unique_ptr<state_lock> lock_;
  runtime::credentials tls_;
  runtime::system_config config_;
  caf::actor_system system_;
  last_welcome welcome_;
  protocol::head_controller_actor controller_; ///< on a head
  protocol::autoscaler_actor autoscaler_;      ///< likewise
  std::shared_ptr<node_provider> provider_; ///< of a head with a cluster file
  std::unique_ptr<router::service> service_;
  std::unique_ptr<public_side> public_;
  protocol::node_agent_actor agent_;
  std::unique_ptr<runtime::join_listener> entrance_;
  std::uint16_t cluster_port_ = 0;
};

// -- start

result<void> running_node::start_head(const head_role& role,
                                      const runtime::authority& issuer) {
  if (auto done = start_controller(role, issuer); !done)
    return done;
  if (auto done = start_service(); !done)
    return done;
  add_serve_api(*service_, system_,
                {controller_, options_.cpu_only, [this] { return facts(); }});
  if (role.open)
    if (auto done = start_entrance(*role.open, issuer); !done)
      return done;
  if (auto done = start_agent(protocol::controller_actor{controller_}); !done)
    return done;
  if (auto done = wait_until_settled(); !done)
    return done;
  // A head that does not start leaves no node behind that it asked for.
  start_autoscaler(role, issuer);
  return {};
}

result<void> running_node::start_worker(const runtime::membership& mine) {
  if (auto done = start_service(); !done)
    return done;
  if (auto done = start_agent(mine.head); !done)
    return done;
  return wait_until_settled();
}

/// What the authority revokes is in force here when it is answered: the head's
/// processes have one list beside their credentials.
controller::gatekeeper gatekeeper_of(const runtime::authority& issuer,
                                     const runtime::credentials& tls,
                                     runtime::revocation_list revoked) {
  controller::gatekeeper out;
  out.revoked = std::move(revoked);
  out.revoke = [issuer, tls](const std::string& node) {
    auto all = issuer.revoke(node);
    if (all)
      if (auto known = runtime::revocations::of(tls).replace(*all); !known)
        spdlog::error("replicas of the head do not know who was revoked: {}",
                      known.error().message);
    return all;
  };
  return out;
}

result<void> running_node::start_controller(const head_role& role,
                                            const runtime::authority& issuer) {
  auto store = controller::state_store::open(options_.state_dir / "state.db");
  if (!store)
    return store.error();
  auto restore = !role.wanted;
  auto revoked = issuer.revoked();
  if (!revoked)
    return revoked.error();
  auto spawned = controller::spawn_controller(
      system_, std::move(*store), restore,
      gatekeeper_of(issuer, tls_, std::move(*revoked)));
  if (!spawned)
    return spawned.error();
  controller_ = *spawned;
  if (restore)
    return {};
  auto stored = controller::deploy_now(system_, controller_, *role.wanted);
  if (!stored)
    return error{errc::io,
                 "the deployment was not accepted: " + stored.error().message};
  return {};
}

result<void> running_node::start_service() {
  router::options asked;
  asked.host = options_.http.host;
  asked.port = options_.http.port;
  asked.admin_host = options_.admin.host;
  asked.admin_port = options_.admin.port;
  asked.tls = tls_;
  if (controller_)
    asked.loads = [this](auto done) {
      controller::query_status(system_, controller_, [done](auto status) {
        done(status ? load_of(*status) : router::cluster_load{});
      });
    };
  auto service = router::service::start(std::move(asked), system_);
  if (!service)
    return service.error();
  service_ = std::move(*service);
  public_ = std::make_unique<public_side>(*service_, usual_grace);
  return {};
}

result<void> running_node::start_agent(node_agent::head_place head) {
  node_agent::node_agent_options agent;
  agent.self = node_agent::describe_node(options_.name, options_.address,
                                         options_.given);
  agent.tls = tls_;
  agent.run_directory = options_.state_dir / "run" / "replicas";
  agent.address = options_.address;
  agent.replica_executable = options_.replica_executable;
  agent.replica_logging = options_.replica_logging;
  agent.on_router_wanted = [this](bool wanted) { public_->want(wanted); };
  if (!controller_) // whose own word it is
    agent.on_revoked = [this](const auto& all) {
      if (auto known = runtime::revocations::of(tls_).replace(all); !known)
        spdlog::error("who was revoked is not known to replicas here: {}",
                      known.error().message);
    };
  agent.on_welcome = [this](const auto& welcome) { welcome_.hear(welcome); };
  auto spawned =
      node_agent::spawn_node_agent(system_, std::move(agent), std::move(head));
  if (!spawned)
    return spawned.error();
  agent_ = *spawned;
  public_->tell(agent_);
  return {};
}

result<void> running_node::start_entrance(const entrance& wanted,
                                          const runtime::authority& issuer) {
  auto port =
      runtime::publish(controller_, options_.address, wanted.cluster_port);
  if (!port)
    return port.error();
  cluster_port_ = *port;
  auto listener = runtime::join_listener::start(
      issuer, {options_.address, wanted.join_port, tls_, cluster_port_});
  if (!listener)
    return listener.error();
  entrance_ = std::move(*listener);
  return {};
}

void running_node::start_autoscaler(const head_role& role,
                                    const runtime::authority& issuer) {
  autoscaler::node_bringing bringing;
  std::error_code none;
  if (role.cluster && entrance_) {
    const auto& cluster = *role.cluster;
    spdlog::info("the cluster {}: {} node types, at most {} workers",
                 cluster.cluster_name, cluster.node_types.size(),
                 cluster.max_workers);
    bringing = bring_nodes(cluster, options_, entrance_->port(), issuer);
  } else if (!std::filesystem::is_empty(nodes_directory(options_.state_dir),
                                        none) &&
             !none) {
    spdlog::warn("nodes may live that a head before brought; without its "
                 "--autoscaling-config nobody ends them");
  }
  provider_ = bringing.provider;
  autoscaler_ =
      autoscaler::spawn_autoscaler(system_, controller_, std::move(bringing));
}

/// The head says at once what this node is to do, unless it is away.
result<void> running_node::wait_until_settled() {
  using clock = std::chrono::steady_clock;
  auto end = clock::now() + first_word_time;
  auto is_refused = false;
  while (clock::now() < end) {
    auto settled = public_->wait_settled(look_time);
    if (!settled)
      return settled.error();
    if (*settled)
      return {};
    if (auto why = shut_out())
      return *why;
    if (!welcome_.refusal().empty() && !std::exchange(is_refused, true))
      end = std::min(end, clock::now() + refused_time);
  }
  if (auto why = welcome_.refusal(); !why.empty())
    return error{
        errc::unavailable,
        fmt::format("the head refuses the node {}: {}", options_.name, why)};
  spdlog::warn("the head does not answer; this node goes on trying");
  return {};
}

// -- while it runs

node_facts running_node::facts() const {
  node_facts out;
  out.pid = ::getpid();
  out.node = options_.name;
  out.role = controller_ ? "head" : "worker";
  out.address = options_.address;
  out.http_host = options_.http.host;
  out.admin_host = options_.admin.host;
  out.http_port = public_->port();
  out.admin_port = service_->admin_port();
  out.join_port = entrance_ ? entrance_->port() : std::uint16_t{0};
  out.cluster_port = cluster_port_;
  return out;
}

result<protocol::cluster_status> running_node::status() {
  if (!controller_)
    return error{errc::unsupported, "this node is not the head"};
  return controller::status_now(system_, controller_);
}

std::optional<error> running_node::shut_out() const {
  if (runtime::revocations::of(tls_).is_own_void())
    return runtime::own_certificate_revoked();
  return std::nullopt;
}

milliseconds running_node::patience() {
  if (!controller_)
    return usual_grace;
  auto wanted = controller::config_now(system_, controller_);
  if (!wanted)
    return usual_grace;
  milliseconds longest{0};
  for (const auto& model : wanted->models)
    longest = std::max(longest,
                       milliseconds{model.spec.graceful_shutdown_timeout_ms});
  return longest;
}

// -- death

void running_node::stop_agent(milliseconds time_max, bool& clean) {
  auto drained = false;
  {
    caf::scoped_actor self{system_};
    self->request(agent_, caf::duration{time_max + 3s},
                  protocol::drain_atom::value,
                  static_cast<std::uint32_t>(time_max.count()))
        .receive([&](bool all) { drained = all; }, [](const caf::error&) {});
  }
  clean &= drained;
  runtime::stop_actor(system_, agent_, actor_end_time);
  agent_ = nullptr;
}

/// Those that a provider brought end with the head that is told to end, beside
/// its own replicas. The autoscaler first: it would bring others.
std::thread running_node::end_workers(milliseconds time_max) {
  if (autoscaler_)
    runtime::stop_actor(system_, autoscaler_, actor_end_time);
  autoscaler_ = nullptr;
  if (!provider_)
    return {};
  return std::thread{[this, time_max] {
    provider_->end_all(std::max<milliseconds>(time_max, workers_end_min));
    provider_.reset();
  }};
}

bool running_node::stop(milliseconds time_max) {
  auto clean = true;
  auto end = std::chrono::steady_clock::now() + time_max;
  entrance_.reset();
  auto workers = end_workers(time_max); // they finish what they run, meanwhile
  if (public_)
    public_->stop();
  if (service_)
    clean = service_->stop(time_max);
  auto left = std::chrono::duration_cast<milliseconds>(
      end - std::chrono::steady_clock::now());
  auto ran = agent_ != nullptr;
  if (ran)
    stop_agent(std::max(left, 500ms), clean);
  if (workers.joinable())
    workers.join();
  public_.reset();
  service_.reset();
  if (controller_) {
    runtime::stop_actor(system_, controller_, actor_end_time);
    controller_ = nullptr;
  }
  if (ran) // its controller need not have heard of its own agent's end
    spdlog::info("this node has stopped");
  return clean;
}

/// Joins with a token, or comes back with the membership of an earlier life:
/// without a token, or where the head is away.
bool is_numeric(const std::string& host) {
  boost::system::error_code bad;
  boost::asio::ip::make_address(host, bad);
  return !bad;
}

result<runtime::membership> become_member(const node_options& options,
                                          const worker_role& role) {
  auto directory = membership_directory(options.state_dir);
  if (role.token.empty()) {
    if (auto earlier = runtime::existing_membership(directory)) {
      if (is_numeric(role.host) && role.host != earlier->head.address)
        return error{errc::invalid_argument,
                     "this machine belongs to the head at " +
                         earlier->head.address +
                         "; to join another one, give a token of that one"};
      return *earlier;
    }
    return error{errc::invalid_argument,
                 "this machine has not joined yet: a token is needed (`troupe "
                 "token create` on the head prints one)"};
  }
  auto token = runtime::read_token(role.token);
  if (!token)
    return token.error();
  auto joined = runtime::join_cluster(role.host, role.port, role.token,
                                      options.name, directory, join_time);
  if (joined)
    return joined;
  auto earlier = runtime::existing_membership(directory, token->authority_hash);
  if (!earlier)
    return joined;
  spdlog::warn("{}; going on with the membership of an earlier start",
               joined.error().message);
  return *earlier;
}

std::unique_ptr<running_node> make_node(node_options options,
                                        std::unique_ptr<state_lock> lock,
                                        const runtime::credentials& tls) {
  runtime::system_options system;
  system.tls = tls;
  return std::make_unique<running_node>(std::move(options), std::move(lock),
                                        tls, system);
}

using started = result<std::unique_ptr<node_process>>;

started start_as(node_options options, std::unique_ptr<state_lock> lock,
                 const head_role& role) {
  auto issuer = runtime::authority::open(options.state_dir / "authority");
  if (!issuer)
    return issuer.error();
  auto tls = issuer->issue(options.name, options.state_dir / "run" / "node");
  if (!tls)
    return tls.error();
  auto out = make_node(std::move(options), std::move(lock), *tls);
  if (auto done = out->start_head(role, *issuer); !done)
    return done.error();
  return std::unique_ptr<node_process>{std::move(out)};
}

started start_as(node_options options, std::unique_ptr<state_lock> lock,
                 const worker_role& role) {
  auto mine = become_member(options, role);
  if (!mine)
    return mine.error();
  auto out = make_node(std::move(options), std::move(lock), mine->tls);
  if (auto done = out->start_worker(*mine); !done)
    return done.error();
  return std::unique_ptr<node_process>{std::move(out)};
}

} // namespace

started node_process::start(node_options options, node_role role) {
  if (auto fine = runtime::check_listen_address(options.address); !fine)
    return fine.error();
  auto lock = state_lock::take(options.state_dir);
  if (!lock)
    return lock.error();
  remove_facts(options.state_dir); // of a life that was cut off
  warn_of_open_listeners(options);
  return std::visit(
      [&](const auto& as) {
        return start_as(std::move(options), std::move(*lock), as);
      },
      role);
}

} // namespace troupe::node
