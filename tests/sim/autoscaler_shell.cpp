#include "tests/sim/autoscaler_shell.hpp"

#include "tests/sim/unsteady_reports.hpp"

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;
using namespace protocol;
namespace fleet = autoscaler::fleet;

constexpr nanoseconds in_process = 2us;
// As in autoscaler.cpp.
constexpr nanoseconds answer_max = 10s;
constexpr nanoseconds question_pause = 1s;

/// Of the controller: nothing if it does not come in time.
template <class Answer>
std::function<void(Answer)> wait_for(process& self,
                                     std::function<void(const Answer*)> done) {
  auto waits = std::make_shared<bool>(true);
  self.after(answer_max, [waits, done] {
    if (std::exchange(*waits, false))
      done(nullptr);
  });
  return [waits, done](const Answer& answer) {
    if (std::exchange(*waits, false))
      done(&answer);
  };
}

} // namespace

bool newest_reports::take(const std::string& source, std::uint64_t incarnation,
                          std::uint64_t sequence) {
  auto& known = sources_[source];
  if (incarnation != known.incarnation) {
    if (known.before.contains(incarnation))
      return false;
    known.before.insert(std::exchange(known.incarnation, incarnation));
  } else if (sequence <= known.sequence) {
    return false;
  }
  known.sequence = sequence;
  return true;
}

autoscaler_shell::autoscaler_shell(process& self, surroundings around,
                                   controller_shell& controller,
                                   simulated_provider* provider)
    : self_(self), around_(around), controller_(controller),
      provider_(provider) {
  controller_.watch(this);
  if (!provider_)
    return;
  provider_->serve(self_);
  living_ = provider_->living();
  provider_->listen([this](const std::string& node, const std::string& why) {
    self_.after(in_process, [this, node, why] { node_ended(node, why); });
  });
  begin_nodes();
}

// -- replicas
// -------------------------------------------------------------------

void autoscaler_shell::know(const codec::bytes& record) {
  auto models = controller::decode_scaled_models(record);
  if (!models)
    around_.world.fail("I2", "what there is to scale cannot be read");
  scaler_.know(*models);
  undisturbed_.know(*models);
  serving_.clear();
  for (const auto& model : models->models)
    for (const auto& one : model.replicas)
      serving_[one.replica] = {one.incarnation, model.revision};
  if (!scaler_.idle() && !is_ticking_)
    set_timer();
}

void autoscaler_shell::hear_router(const codec::bytes& record) {
  auto report = decode_router_report(record);
  if (!report)
    around_.world.fail("I2", "a router's report cannot be read");
  scaler_.hear(*report, self_.now());
  if (newest_.take(report->node, report->incarnation, report->sequence))
    undisturbed_.hear(*report, self_.now());
}

/// The controller drops what is late by itself; so that the scaler has
/// something to drop, it may hear of it again.
void autoscaler_shell::hear_replica(const codec::bytes& record) {
  auto news = decode_replica_load_news(record);
  if (!news)
    around_.world.fail("I2", "a replica's load cannot be read");
  hear(*news);
  around_.reports.repeat(self_, [this, news = *news] { hear(news); });
}

void autoscaler_shell::hear(const replica_load_news& news) {
  scaler_.hear(news, self_.now());
  auto known = serving_.find(news.replica);
  if (known == serving_.end() || known->second.incarnation != news.incarnation)
    return; // it does not count
  // Another revision of the model begins without a past.
  auto source = news.replica + " " + std::to_string(known->second.revision);
  if (newest_.take(source, news.incarnation, news.sequence))
    undisturbed_.hear(news, self_.now());
}

void autoscaler_shell::tick() {
  is_ticking_ = false;
  auto wall = self_.clock().read_wall(around_.world.now());
  auto orders = scaler_.tick(self_.now(), wall);
  if (orders != undisturbed_.tick(self_.now(), wall))
    around_.world.fail("I8", "a report that is late or doubled counts");
  for (const auto& order : orders) {
    around_.world.trace("scale", order.model, order.target, order.now,
                        order.held_back);
    self_.after(in_process,
                [this, record = encode(order)] { controller_.scale(record); });
  }
  if (!scaler_.idle())
    set_timer();
}

void autoscaler_shell::set_timer() {
  is_ticking_ = true;
  self_.after(autoscaler::scaling_tick, [this] { tick(); });
}

// -- nodes
// -------------------------------------------------------------------

void autoscaler_shell::begin_nodes() {
  auto answered =
      wait_for<codec::bytes>(self_, [this](const codec::bytes* record) {
        if (record)
          met(*record);
        else
          self_.after(question_pause, [this] { look_at_nodes(); });
      });
  self_.after(in_process,
              [this, answered] { controller_.watch_nodes(answered); });
}

void autoscaler_shell::met(const codec::bytes& record) {
  auto stored = decode_asked_nodes(record);
  if (!stored)
    around_.world.fail("I2", "the nodes that were asked for cannot be read");
  if (nodes_)
    return;
  epoch_ = stored->head_epoch;
  nodes_.emplace(provider_->options(), epoch_);
  auto todo = nodes_->begin(stored->nodes, living_, self_.now());
  check_begin(stored->nodes, todo);
  execute(todo);
  for (const auto& [node, why] : std::exchange(early_ends_, {}))
    node_ended(node, why);
  if (!early_view_.empty())
    know_nodes(std::exchange(early_view_, {}));
}

/// What lives was stored before; and what is stored and was not told to end
/// lives on.
void autoscaler_shell::check_begin(const std::vector<asked_node>& stored,
                                   const fleet::commands& todo) {
  auto is_stored = [&](const std::string& node) {
    return std::any_of(stored.begin(), stored.end(),
                       [&](const auto& one) { return one.node == node; });
  };
  for (const auto& [node, ending] : living_) {
    if (!is_stored(node))
      around_.world.fail("I9", node + " lives, and the store does not know it");
    for (const auto& order : todo)
      if (const auto* end = std::get_if<fleet::end_node>(&order);
          end && end->node == node && !ending)
        around_.world.fail("I9", node + " is ended for the death of the head");
  }
}

void autoscaler_shell::know_nodes(const codec::bytes& record) {
  if (!nodes_) {
    early_view_ = record;
    return;
  }
  auto view = decode_nodes_view(record);
  if (!view)
    around_.world.fail("I2", "what nodes there are cannot be read");
  seen_.clear();
  for (const auto& one : view->nodes)
    seen_[one.node] = one.alive;
  execute(nodes_->know(std::move(*view), self_.now()));
}

void autoscaler_shell::node_ended(const std::string& node,
                                  const std::string& why) {
  if (nodes_)
    execute(nodes_->ended(node, why, self_.now()));
  else
    early_ends_.emplace_back(node, why);
}

void autoscaler_shell::look_at_nodes() {
  timers_.erase(timers_.begin(), timers_.upper_bound(self_.now()));
  if (nodes_)
    execute(nodes_->tick(self_.now()));
  else
    begin_nodes();
}

void autoscaler_shell::execute(const fleet::commands& todo) {
  for (const auto& order : todo)
    std::visit([this](const auto& what) { carry_out(what); }, order);
  set_nodes_timer();
}

void autoscaler_shell::carry_out(const fleet::store_nodes& list) {
  auto answered = wait_for<bool>(self_, [this](const bool* done) {
    execute(nodes_->stored(done && *done, self_.now()));
  });
  self_.after(in_process,
              [this, record = encode(asked_nodes{epoch_, list.nodes}),
               answered] { controller_.keep_asked(record, answered); });
}

void autoscaler_shell::carry_out(const fleet::ask_for& wish) {
  provider_->ask(wish.node, wish.type);
}

void autoscaler_shell::close(const std::string& node, bool closed,
                             std::function<void(bool)> done) {
  self_.after(in_process, [this, node, closed, done = std::move(done)] {
    controller_.close_node(node, closed, done);
  });
}

void autoscaler_shell::carry_out(const fleet::close_node& order) {
  const auto& node = order.node;
  if (!order.closed) {
    drained_.erase(node);
    close(node, false, [](bool) {});
    return;
  }
  close(node, true, wait_for<bool>(self_, [this, node](const bool* done) {
          if (!done)
            close(node, false, [](bool) {});
          if (done && *done)
            drained_.insert(node);
          execute(nodes_->closed(node, done && *done, self_.now()));
        }));
}

/// One that is there is empty, and the controller places nothing there.
void autoscaler_shell::check_end(const std::string& node) {
  auto seen = seen_.find(node);
  if (seen == seen_.end() || !seen->second)
    return;
  if (!drained_.contains(node))
    around_.world.fail("I9", node + " is ended without being drained");
  for (const auto& one : controller_.machine().nodes(self_.now()).nodes)
    if (one.node == node && one.alive && (one.busy || !one.closed))
      around_.world.fail("I9", node + " is ended with what it has");
}

void autoscaler_shell::carry_out(const fleet::end_node& order) {
  check_end(order.node);
  provider_->end(order.node);
}

void autoscaler_shell::set_nodes_timer() {
  auto due = nodes_->next_deadline(self_.now());
  if (!due || (!timers_.empty() && *timers_.begin() <= *due))
    return;
  timers_.insert(*due);
  self_.after(std::max<nanoseconds>(*due - self_.now(), 0ns),
              [this] { look_at_nodes(); });
}

} // namespace troupe::sim
