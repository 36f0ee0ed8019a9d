// A replica of one's own behind Troupe's router: one process that serves the
// OpenAI API without controller, node agent and replica processes.
//
//   own_service MODEL.gguf [PORT]
//
// PORT is 8000 unless given, 0 = any. The model is called "own". Ctrl-C ends
// it. Exit status: 0 = well, 1 = failed, 2 = usage.

#include "actors/protocol/actors.hpp"
#include "actors/protocol/routing_table.hpp"
#include "actors/replica/engine_inbox.hpp"
#include "actors/replica/session_table.hpp"
#include "actors/runtime/stop_actor.hpp"
#include "engine/engine.hpp"
#include "router/service.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <iostream>
#include <map>

using namespace troupe;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t incarnation = 1; // random where processes come and go
using news_atom = caf::atom_constant<caf::atom("news")>;

/// What routers know, and a message from the engine's thread.
using own_replica =
    protocol::replica_actor::extend<caf::reacts_to<news_atom>,
                                    caf::reacts_to<protocol::tick_atom>>;

/// The shell: hands messages to the state machine (session_table) and carries
/// out what it says. Rules about choices and routers are all in there.
struct replica_shell {
  explicit replica_shell(own_replica::pointer owner) : self(owner) {
    self->set_down_handler([this](const caf::down_msg& x) { lost(x.source); });
  }

  void lost(const caf::actor_addr& sink) {
    auto i = std::find_if(sinks.begin(), sinks.end(), [&](const auto& one) {
      return one.second.address() == sink;
    });
    if (i == sinks.end())
      return;
    auto router = i->first;
    sinks.erase(i);
    run(table.router_gone(router));
  }

  void run(replica::session_commands todo) {
    for (auto& one : todo)
      std::visit([this](auto& command) { obey(command); }, one);
  }

  void obey(replica::submit_choice& x) {
    engine->submit(std::move(x.request));
  }

  void obey(replica::cancel_choice& x) {
    engine->cancel(x.engine_id);
  }

  void obey(replica::send_tokens& x) {
    if (auto i = sinks.find(x.router); i != sinks.end())
      self->send(i->second, protocol::tokens_atom::value,
                 protocol::encode(x.batch, x.version));
  }

  own_replica::pointer self;
  engine::engine* engine = nullptr;
  replica::session_table table{"own#1", incarnation, {}};
  std::map<std::uint64_t, protocol::token_sink_actor> sinks; // by router
};

own_replica::behavior_type
behavior(own_replica::stateful_pointer<replica_shell> self,
         engine::engine* engine, std::shared_ptr<replica::engine_inbox> inbox) {
  auto* shell = &self->state;
  shell->engine = engine;
  shell->table.open();
  self->delayed_send(self, 100ms, protocol::tick_atom::value);
  return {
      [=](protocol::attach_atom, std::uint64_t router, std::uint32_t version,
          const protocol::token_sink_actor& sink)
          -> caf::result<std::uint64_t, std::uint32_t> {
        auto todo = shell->table.attach(router, version);
        if (!todo)
          return caf::make_error(caf::sec::invalid_argument);
        shell->sinks[router] = sink;
        self->monitor(sink);
        shell->run(std::move(*todo));
        return {incarnation, protocol::protocol_version};
      },
      [=](protocol::generate_atom, std::uint64_t router,
          const codec::bytes& record) {
        shell->run(shell->table.generate(router, record, self->clock().now()));
      },
      [=](protocol::cancel_atom, std::uint64_t router, std::uint64_t id) {
        shell->run(shell->table.cancel(router, id));
      },
      [=](protocol::drain_atom, std::uint32_t) {
        shell->table.close("the service is ending");
      },
      [=](protocol::tune_atom, const codec::bytes&) {}, // nobody deploys it
      [=](news_atom) {
        for (auto& step : inbox->take().steps)
          shell->run(shell->table.step(std::move(step)));
      },
      [=](protocol::tick_atom) { // deadlines of choices
        self->delayed_send(self, 100ms, protocol::tick_atom::value);
        shell->run(shell->table.tick(self->clock().now()));
      },
  };
}

struct actor_config : caf::actor_system_config {
  actor_config() {
    add_message_types<caf::id_block::troupe>();
    set("scheduler.policy", caf::atom("sharing")); // sleeps when idle
    set("scheduler.max-threads", 2u);
  }
};

/// The one model at the one replica, as a controller would announce it.
protocol::routing_table table_of(const engine::engine& engine) {
  protocol::replica_route replica;
  replica.replica = "own#1";
  replica.where.incarnation = incarnation;
  replica.arithmetic_class = engine.about().arithmetic_class;
  replica.card_hash = "own";
  replica.version = protocol::protocol_version;
  protocol::model_route model;
  model.application = "example";
  model.route_prefix = "/";
  model.model = "own";
  model.status = "RUNNING";
  model.replicas = {replica};
  protocol::routing_table out;
  out.version = 1;
  out.models = {model};
  return out;
}

/// Both are in this process: no connection is made, no card is fetched.
router::replica_access access_to(const own_replica& actor,
                                 const engine::engine& engine) {
  router::replica_access out;
  out.connect = [actor](auto, const protocol::endpoint&, auto, auto done) {
    done(caf::actor_cast<protocol::replica_actor>(actor));
  };
  auto card = text::encode(engine.card());
  out.fetch_card = [card](const protocol::endpoint&, const std::string&) {
    return result<std::string>{std::string{card.begin(), card.end()}};
  };
  return out;
}

result<void> run(const std::string& model, std::uint16_t port,
                 const sigset_t& ends) {
  engine::options options;
  options.model = model;
  options.kv_cache_bytes = 1u << 30;
  auto loaded = engine::engine::load(options, [](auto, auto) {});
  if (!loaded)
    return loaded.error();

  actor_config config;
  caf::actor_system system{config};
  // The inbox wakes the actor, which the inbox does not keep alive.
  auto target = std::make_shared<caf::weak_actor_ptr>();
  auto inbox = std::make_shared<replica::engine_inbox>([target] {
    if (auto to = caf::actor_cast<own_replica>(*target))
      caf::anon_send(to, news_atom::value);
  });
  auto actor = system.spawn(behavior, loaded->get(), inbox);
  *target = caf::actor_cast<caf::weak_actor_ptr>(actor);
  (*loaded)->start([inbox](engine::step_result&& step) {
    inbox->put_step(std::move(step));
  });

  router::options http;
  http.port = port;
  http.admin_port = 0;
  auto service =
      router::service::start(http, system, access_to(actor, **loaded));
  auto listens = service ? (*service)->open_public() : service.error();
  if (listens) {
    caf::anon_send((*service)->actor(), protocol::table_atom::value,
                   protocol::encode(table_of(**loaded)));
    std::cout << "http://127.0.0.1:" << (*service)->port() << std::endl;
    int signal = 0;
    sigwait(&ends, &signal);
    (*service)->stop(10s); // answers under way may end
  }
  if (service)
    service->reset();
  // The order of death: router, replica, engine, actor system.
  runtime::stop_actor(system, actor, 2s);
  actor = nullptr;
  loaded->reset();
  return listens;
}

} // namespace

int main(int argc, char** argv) {
  std::uint16_t port = 8000;
  auto ok = argc == 2 || argc == 3;
  if (argc == 3) {
    std::string_view given{argv[2]};
    auto read = std::from_chars(given.begin(), given.end(), port);
    ok = read.ec == std::errc{} && read.ptr == given.end();
  }
  if (!ok) {
    std::cerr << "usage: own_service MODEL.gguf [PORT]\n";
    return 2;
  }
  // Before there are threads: all of them leave these signals to sigwait.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  if (auto done = run(argv[1], port, ends); !done) {
    std::cerr << "own_service: " << done.error().message << '\n';
    return 1;
  }
}
