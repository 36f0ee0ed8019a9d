#include "tests/sim/controller_shell.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;
using namespace protocol;

constexpr nanoseconds in_process = 2us;
// As in controller.cpp.
constexpr nanoseconds remember_pause = 100ms;
constexpr nanoseconds remember_retry = 1s;
constexpr nanoseconds others_pause = 100ms;

} // namespace

controller_shell::controller_shell(process& self, surroundings around, disk& d,
                                   std::function<void(message)> to_own_agent)
    : self_(self), around_(around), disk_(d),
      to_own_agent_(std::move(to_own_agent)), store_(d) {
  start();
}

void controller_shell::start() {
  auto epoch = store_.next_epoch();
  if (!epoch)
    around_.world.fail("I5", "a head is started on a disk that is full");
  auto remembered = store_.remembered_nodes();
  auto stored = store_.latest();
  machine_ = std::make_unique<controller::controller_machine>(
      *epoch, controller::controller_limits{}, *remembered, self_.now());
  controller::deployment before;
  if (*stored) {
    auto read = controller::decode_deployment((*stored)->record);
    if (!read)
      around_.world.fail("I5", "the stored deployment cannot be read");
    before = std::move(*read);
  }
  execute(machine_->restore(std::move(before), self_.now(),
                            *store_.remembered_targets()));
}

/// What reaches the actor: at once, or when the store has written.
void controller_shell::hear(world::action what) {
  auto wait = disk_.busy_until() - around_.world.now();
  if (wait <= 0ns)
    what();
  else
    around_.world.after(wait, [this, what = std::move(what)]() mutable {
      self_.run(
          [this, what = std::move(what)]() mutable { hear(std::move(what)); });
    });
}

/// What the actor does after its writes.
void controller_shell::say(world::action what) {
  auto wait = std::max(disk_.busy_until() - around_.world.now(), instant{0});
  around_.world.after(wait + in_process, [this, what = std::move(what)] {
    if (self_.alive())
      what();
  });
}

void controller_shell::on_message(link_id from, message what) {
  hear([this, from, what = std::move(what)] {
    if (what.what == topic::join) {
      join(from, what);
    } else if (what.what == topic::news) {
      auto news = decode_replica_news(what.body);
      if (!news)
        around_.world.fail("I2", "a node's news cannot be read");
      take_news(*news);
    } else if (what.what == topic::death_of_mine) {
      auto notice = decode_death_notice(what.body);
      if (!notice)
        around_.world.fail("I2", "a death notice cannot be read");
      execute(machine_->death(*notice, self_.now()));
    } else if (what.what == topic::load) {
      take_router_load(what.body);
    }
  });
}

/// What an older epoch of a node says changes nothing (I4).
void controller_shell::take_news(const replica_news& news) {
  auto known = nodes_.find(news.node);
  auto old = known == nodes_.end() || known->second.epoch != news.node_epoch;
  auto before = old ? machine_->table().version : 0;
  execute(machine_->report(news, self_.now()));
  if (old && machine_->table().version != before)
    around_.world.fail("I4", "news of an old epoch of " + news.node +
                                 " are believed");
}

/// Of a router whose node is here, as its agent joined last.
void controller_shell::take_router_load(const codec::bytes& record) {
  auto report = decode_router_report(record);
  if (!report)
    around_.world.fail("I2", "a router's report cannot be read");
  auto from = nodes_.find(report->node);
  if (from == nodes_.end() || from->second.epoch != report->node_epoch)
    return;
  tell_autoscaler(&autoscaler_sink::hear_router, record);
  routers_.hear(*report);
  if (!std::exchange(others_due_, true))
    self_.after(others_pause, [this] { hear([this] { tell_others(); }); });
}

/// As controller.cpp.
void controller_shell::tell_others() {
  others_due_ = false;
  for (const auto& change : routers_.due(self_.now()))
    if (auto to = nodes_.find(change.node); to != nodes_.end()) {
      message out;
      out.what = topic::others;
      out.body = encode(change.others);
      send(to->second.link, std::move(out));
    }
}

// -- the autoscaler
// -------------------------------------------------------------------

void controller_shell::watch(autoscaler_sink* from) {
  autoscaler_ = from;
  hear([this] {
    tell_autoscaler(&autoscaler_sink::know,
                    controller::encode(machine_->scaled()));
  });
}

void controller_shell::tell_autoscaler(
    void (autoscaler_sink::*what)(const codec::bytes&), codec::bytes record) {
  if (autoscaler_)
    say([this, what, record = std::move(record)]() mutable {
      self_.run([this, what, record = std::move(record)] {
        (autoscaler_->*what)(record);
      });
    });
}

void controller_shell::scale(const codec::bytes& record) {
  hear([this, record] {
    auto order = decode_scale_order(record);
    if (!order)
      around_.world.fail("I2", "an order to scale cannot be read");
    execute(machine_->scale(*order, self_.now()));
  });
}

void controller_shell::watch_nodes(std::function<void(codec::bytes)> done) {
  hear([this, done = std::move(done)] {
    asked_ = *store_.asked_nodes();
    execute(machine_->watch_nodes(self_.now()));
    asked_nodes list{machine_->epoch(), asked_};
    say([this, done, answer = encode(list)] {
      self_.run([done, answer] { done(answer); });
    });
  });
}

/// Those that are in the list no more have ended.
void controller_shell::keep_asked(const codec::bytes& record,
                                  std::function<void(bool)> done) {
  hear([this, record, done = std::move(done)] {
    auto list = decode_asked_nodes(record);
    if (!list)
      around_.world.fail("I2", "a list of nodes cannot be read");
    auto stored = store_.remember_asked(list->nodes).has_value();
    if (stored) {
      std::vector<std::string> ended;
      for (const auto& [node, type] : asked_)
        if (std::none_of(list->nodes.begin(), list->nodes.end(),
                         [&](const auto& one) { return one.node == node; }))
          ended.push_back(node);
      asked_ = std::move(list->nodes);
      execute(machine_->bury(ended, self_.now()));
    }
    say([this, done, stored] { self_.run([done, stored] { done(stored); }); });
  });
}

void controller_shell::close_node(const std::string& node, bool closed,
                                  std::function<void(bool)> done) {
  hear([this, node, closed, done = std::move(done)] {
    controller::commands orders;
    auto is_done = machine_->close_node(node, closed, orders, self_.now());
    around_.world.trace(closed ? "close" : "open", node, is_done);
    execute(orders);
    say([this, done, is_done] {
      self_.run([done, is_done] { done(is_done); });
    });
  });
}

void controller_shell::join(link_id from, const message& ask) {
  auto joined = decode_node_joined(ask.body);
  if (!joined)
    around_.world.fail("I2", "a registration cannot be read");
  auto name = joined->node;
  controller::commands todo;
  auto welcome = machine_->join(std::move(*joined), todo, self_.now());
  around_.world.trace("join", name, welcome.accepted, welcome.head_epoch,
                      welcome.node_epoch, welcome.reason);
  if (welcome.accepted) {
    nodes_[name] = {from, welcome.node_epoch, {}};
    self_.watch(from);
  }
  message out;
  out.what = topic::answer;
  out.number = ask.number;
  out.body = encode(welcome);
  send(from, std::move(out));
  execute(todo);
}

void controller_shell::on_down(link_id link) {
  hear([this, link] {
    for (auto i = nodes_.begin(); i != nodes_.end();) {
      auto current = i++;
      if (current->second.link != link)
        continue;
      auto [name, gone] = *current;
      nodes_.erase(current);
      routers_.forget(name);
      execute(machine_->node_lost(name, gone.epoch, self_.now()));
    }
  });
}

void controller_shell::deploy(codec::bytes record, on_version done) {
  hear([this, record = std::move(record), done = std::move(done)] {
    auto wanted = controller::decode_deployment(record);
    if (!wanted)
      around_.world.fail("I5", "a deployment cannot be read");
    store_and_deploy(std::move(*wanted), done);
  });
}

void controller_shell::remove(std::string application, on_version done) {
  hear([this, application = std::move(application), done = std::move(done)] {
    store_and_deploy(controller::without(machine_->wanted(), application),
                     done);
  });
}

void controller_shell::store_and_deploy(controller::deployment wanted,
                                        const on_version& done) {
  for (auto& model : wanted.models)
    for (const auto& old : machine_->wanted().models)
      if (old.spec.application == model.spec.application &&
          old.spec.model == model.spec.model)
        model.created = old.created;
  auto version = store_.save(controller::encode(wanted));
  if (version)
    execute(machine_->deploy(std::move(wanted), self_.now()));
  say([done, version] { done(version); });
}

void controller_shell::execute(const controller::commands& todo) {
  for (const auto& order : todo) {
    if (const auto* x = std::get_if<controller::send_assignment>(&order)) {
      message out;
      out.what = topic::assign;
      out.body = encode(x->assignment);
      if (auto to = nodes_.find(x->node);
          to != nodes_.end() && to->second.epoch == x->assignment.node_epoch) {
        send(to->second.link, std::move(out));
        to->second.assigned.clear();
        for (const auto& one : x->assignment.replicas)
          to->second.assigned.push_back(one.replica);
      }
    } else if (std::holds_alternative<controller::publish_table>(order)) {
      message out;
      out.what = topic::table;
      out.body = encode(machine_->table());
      send_to_all(out);
    } else if (const auto* x = std::get_if<controller::forward_death>(&order)) {
      message out;
      out.what = topic::death_elsewhere;
      out.body = encode(x->notice);
      send_to_all(out);
    } else if (const auto* x =
                   std::get_if<controller::remember_nodes>(&order)) {
      if (!to_remember_ && !to_remember_targets_)
        remember_at_ = self_.now() + remember_pause;
      to_remember_ = *x;
    } else if (const auto* x =
                   std::get_if<controller::remember_targets>(&order)) {
      if (!to_remember_ && !to_remember_targets_)
        remember_at_ = self_.now() + remember_pause;
      to_remember_targets_ = *x;
    } else if (std::holds_alternative<controller::tell_scaled>(order)) {
      if (autoscaler_)
        tell_autoscaler(&autoscaler_sink::know,
                        controller::encode(machine_->scaled()));
    } else if (std::holds_alternative<controller::tell_nodes>(order)) {
      tell_autoscaler(&autoscaler_sink::know_nodes,
                      encode(machine_->nodes(self_.now())));
    } else if (const auto* x = std::get_if<controller::tell_load>(&order)) {
      tell_autoscaler(&autoscaler_sink::hear_replica, encode(x->news));
    }
  }
  check_assigned();
  set_timer();
}

/// One owner: no replica is given to two nodes that are there (I4).
void controller_shell::check_assigned() {
  std::map<std::string_view, std::string_view> owners;
  for (const auto& [name, to] : nodes_)
    for (const auto& replica : to.assigned)
      if (auto [other, fresh] = owners.emplace(replica, name); !fresh)
        around_.world.fail("I4", replica + " is given to " + name + " and " +
                                     std::string{other->second});
}

void controller_shell::send_to_all(const message& what) {
  for (const auto& [name, to] : nodes_)
    send(to.link, what);
}

void controller_shell::send(link_id to, message what) {
  say([this, to, what = std::move(what)]() mutable {
    if (to == own_process)
      to_own_agent_(std::move(what));
    else
      self_.send(to, std::move(what));
  });
}

void controller_shell::tick() {
  auto now = self_.now();
  timers_.erase(timers_.begin(), timers_.upper_bound(now));
  if (remember_at_ <= now)
    remember();
  execute(machine_->tick(now));
}

void controller_shell::remember() {
  auto done = true;
  if (to_remember_) {
    done = store_.remember_nodes(to_remember_->nodes).has_value();
    if (done)
      to_remember_.reset();
  }
  if (done && to_remember_targets_) {
    done = store_.remember_targets(to_remember_targets_->targets).has_value();
    if (done)
      to_remember_targets_.reset();
  }
  if (!done)
    remember_at_ = self_.now() + remember_retry;
}

void controller_shell::set_timer() {
  auto due = machine_->next_deadline();
  if (to_remember_ || to_remember_targets_)
    due = due ? std::min(*due, remember_at_) : remember_at_;
  if (!due || (!timers_.empty() && *timers_.begin() <= *due))
    return;
  timers_.insert(*due);
  auto pause = std::max<nanoseconds>(*due - self_.now(), 0ns);
  self_.after(pause + 1us, [this] { hear([this] { tick(); }); });
}

} // namespace troupe::sim
