#include "tests/sim/node_process.hpp"

#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds in_process = 2us;
constexpr std::uint16_t http_port = 8000;
constexpr nanoseconds look_every = 50ms;

} // namespace

node_process::node_process(surroundings around, host_id host,
                           const host_clock& clock, ledger& book,
                           node_options options)
    : process(around, host, clock, options.self.node, 0), ledger_(book),
      options_(std::move(options)) {
  // nop
}

void node_process::start() {
  auto port = around_.network.listen(id(), options_.port);
  auto self = options_.self;
  self.incarnation = around_.world.random() | 1;
  around_.world.trace("start", name(), id(), self.incarnation);
  agent_shell::outside out;
  out.head = options_.head;
  out.to_own_controller = [this](message what) {
    after(in_process, [this, what = std::move(what)]() mutable {
      controller_->on_message(controller_shell::own_process, std::move(what));
    });
  };
  out.take_table = [this](const codec::bytes& table) {
    after(in_process, [this, table] { router_->take_table(table); });
  };
  out.take_death = [this](const codec::bytes& notice) {
    after(in_process, [this, notice] { router_->take_death(notice); });
  };
  out.take_others = [this](const codec::bytes& others) {
    after(in_process, [this, others] { router_->take_others(others); });
  };
  out.spawn = [this](const codec::bytes& launch) { return spawn(launch); };
  out.all_stopped = [this] { kill({0, 0}); };
  out.want_router = [this](bool wanted) {
    agent_->router_port(wanted ? http_port : 0);
  };
  if (options_.store)
    controller_ = std::make_unique<controller_shell>(
        *this, around_, *options_.store, [this](message what) {
          if (what.what == topic::answer)
            receive(controller_shell::own_process, std::move(what));
          else
            run([this, what = std::move(what)]() mutable {
              agent_->from_controller(what);
            });
        });
  if (controller_)
    autoscaler_ = std::make_unique<autoscaler_shell>(
        *this, around_, *controller_, options_.provider);
  agent_ = std::make_unique<agent_shell>(*this, around_, std::move(self), port,
                                         std::move(out));
  router_ = std::make_unique<router_shell>(*this, around_, ledger_, *agent_,
                                           around_.world.random() | 1);
  router_->tell_load([this](const codec::bytes& report) {
    after(in_process, [this, report] { agent_->take_router_load(report); });
  });
  after(1ms, [this] { agent_->router_port(http_port); });
}

void node_process::stop(nanoseconds time) {
  if (!std::exchange(stopping_, true))
    finish_requests(now() + time / 2, time);
}

void node_process::finish_requests(local_time end, nanoseconds time) {
  auto busy = router_->table().requests() + router_->sleeping() > 0;
  if (busy && now() < end)
    after(look_every, [this, end, time] { finish_requests(end, time); });
  else
    agent_->drain(time / 2);
}

void node_process::on_message(link_id from, message& what) {
  switch (what.what) {
  case topic::join:
  case topic::news:
  case topic::death_of_mine:
  case topic::load:
    if (controller_)
      controller_->on_message(from, std::move(what));
    break;
  case topic::assign:
  case topic::table:
  case topic::death_elsewhere:
  case topic::others:
    agent_->from_controller(what);
    break;
  case topic::introduce:
  case topic::report:
    agent_->from_replica(from, what);
    break;
  case topic::tokens:
    router_->take_tokens(what.body);
    break;
  default:
    break; // meant for a process that had this port before
  }
}

void node_process::on_down(link_id link) {
  if (controller_)
    controller_->on_down(link);
  agent_->on_down(link);
  router_->on_down(link);
}

void node_process::on_child_end(process_id child, ending how) {
  agent_->on_child_end(child, how);
}

replica_process* node_process::spawn(const codec::bytes& launch) {
  auto habits = options_.habits();
  if (!habits)
    return nullptr;
  auto made = std::make_unique<replica_process>(
      around_, host(), clock(), id(), ledger_, launch, std::move(*habits));
  auto* out = made.get();
  around_.processes.add(std::move(made));
  out->start();
  around_.world.trace("spawn", out->replica(), out->id(), out->incarnation(),
                      name());
  return out;
}

} // namespace troupe::sim
