#include "bench/policies/fleet.hpp"

#include "autoscaler/scaler.hpp"
#include "bench/policies/router.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

namespace troupe::bench {

namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t router_base = 1'000'000; // incarnations of routers

/// All of a run: clients, routers, replicas, the controller's part and the
/// autoscaler.
class fleet {
public:
  fleet(const load& what, const scenario& how)
      : load_(what), how_(how), random_(how.seed) {
    out_.requests.resize(what.arrivals.size());
  }

  run_outcome run() {
    open_routers();
    target_ = how_.replicas;
    for (std::uint32_t i = 0; i < how_.replicas; ++i)
      give_birth(0ns); // they are there when the load begins
    tell_routes();
    while (events_.next() < event_queue::begin)
      events_.step();
    next_arrival();
    for (const auto& one : how_.planned)
      events_.at(event_queue::begin + nanoseconds_of(one.from_s),
                 [this, one] { aim_at(one.replicas); });
    if (how_.scaling)
      begin_scaling();
    while (ended_ < load_.arrivals.size() && events_.step())
      ++out_.events;
    finish();
    return std::move(out_);
  }

private:
  struct life {
    std::unique_ptr<simulated_replica> process;
    double born_s = 0;
    double ended_s = -1; // below 0 = it lives
    bool ready = false;
    bool leaving = false;
    protocol::replica_load_news told;
    double told_s = -1e9;
  };

  struct router_life {
    std::unique_ptr<simulated_router> machine;
    protocol::router_report told;
    double told_s = -1e9;
  };

  nanoseconds hop() const {
    return nanoseconds_of(how_.hop_s);
  }

  double now_s() const {
    return events_.seconds();
  }

  // -- clients

  void next_arrival() {
    if (arrived_ == load_.arrivals.size())
      return;
    events_.at(event_queue::begin +
                   nanoseconds_of(load_.arrivals[arrived_].at_s),
               [this] {
                 submit(arrived_++);
                 next_arrival();
               });
  }

  void submit(std::size_t i) {
    const auto& what = load_.arrivals[i];
    out_.requests[i].at_s = now_s();
    protocol::request_record record;
    record.request_id = std::to_string(i);
    record.model = "model";
    record.prompt = prompt_of(what);
    record.params.temperature = 0;
    record.params.max_tokens = how_.expected_output;
    routers_[random_() % routers_.size()].machine->submit(i, std::move(record));
  }

  void hear(std::uint64_t request, const protocol::choice_tokens& news) {
    auto& of = out_.requests[request];
    if (of.first_token_s < 0 && !news.tokens.empty()) {
      of.first_token_s = now_s() - of.at_s;
      of.cached_tokens = news.cached_tokens;
    }
    of.tokens += static_cast<std::uint32_t>(news.tokens.size());
    if (news.reason != protocol::finish::none)
      end(request);
  }

  void end(std::uint64_t request) {
    auto& of = out_.requests[request];
    of.end_s = now_s() - of.at_s;
    if (++of.endings == 1)
      ++ended_;
  }

  // -- routers

  void open_routers() {
    for (std::uint32_t i = 0; i < how_.routers; ++i) {
      auto incarnation = router_base + i;
      router_outside outside;
      outside.attach = [this, i, incarnation](std::uint64_t replica) {
        events_.after(hop(), [=, this] {
          lives_.at(replica).process->attach(incarnation);
          events_.after(hop(),
                        [=, this] { routers_[i].machine->attached(replica); });
        });
      };
      outside.generate = [this, incarnation](std::uint64_t replica,
                                             const auto& record,
                                             std::uint64_t request) {
        const auto& what = load_.arrivals[request];
        answer_plan plan{what.prompt_tokens, what.output_tokens};
        events_.after(hop(), [=, this] {
          lives_.at(replica).process->generate(incarnation, record, plan);
        });
      };
      outside.cancel = [this, incarnation](std::uint64_t replica,
                                           std::uint64_t record) {
        events_.after(hop(), [=, this] {
          lives_.at(replica).process->cancel(incarnation, record);
        });
      };
      outside.follow_blocks = [this, incarnation](std::uint64_t replica,
                                                  bool wanted) {
        events_.after(hop(), [=, this] {
          lives_.at(replica).process->follow_blocks(incarnation, wanted);
        });
      };
      outside.news = [this](std::uint64_t request, const auto& news) {
        hear(request, news);
      };
      outside.failed = [this](std::uint64_t request, const error&) {
        out_.requests[request].failed = true;
        end(request);
      };
      auto seed = random_();
      auto& made = routers_.emplace_back();
      made.machine = how_.random_choice
                         ? make_random_router(std::move(outside), seed)
                         : make_table_router(events_, std::move(outside),
                                             incarnation, seed);
    }
  }

  void tell_routes() {
    protocol::routing_table table;
    table.version = ++version_;
    auto& model = table.models.emplace_back();
    model.application = "app";
    model.model = "model";
    model.route_prefix = "/";
    model.status = "RUNNING";
    model.choice = how_.rule;
    for (const auto& [incarnation, one] : lives_) {
      if (!one.ready || one.leaving)
        continue;
      auto& route = model.replicas.emplace_back();
      route.replica = "replica#" + std::to_string(incarnation);
      route.where.incarnation = incarnation;
      route.arithmetic_class = "class";
      route.max_ongoing_requests = how_.choices_max;
      route.choices_at_once = 32; // as on a CPU (replica/engine_load)
      route.version = protocol::protocol_version;
    }
    events_.after(hop(), [this, table] {
      for (auto& one : routers_)
        one.machine->route_by(table);
    });
  }

  void deliver(replica::send_tokens&& what) {
    events_.after(hop(), [this, what = std::move(what)]() mutable {
      auto& to = routers_[what.router - router_base];
      to.machine->tokens(std::move(what.batch));
    });
  }

  // -- replicas, as the controller places them

  std::uint32_t ready_count() const {
    return static_cast<std::uint32_t>(
        std::count_if(lives_.begin(), lives_.end(), [](auto& one) {
          return one.second.ready && !one.second.leaving;
        }));
  }

  std::uint32_t wanted_count() const {
    return static_cast<std::uint32_t>(
        std::count_if(lives_.begin(), lives_.end(), [](auto& one) {
          return !one.second.leaving && one.second.ended_s < 0;
        }));
  }

  void give_birth(nanoseconds time) {
    auto incarnation = ++last_replica_;
    lives_[incarnation].born_s = now_s();
    events_.after(time, [this, incarnation] {
      auto& one = lives_.at(incarnation);
      if (one.leaving)
        return; // given up meanwhile
      one.process = std::make_unique<simulated_replica>(
          events_, how_.replica, incarnation, how_.choices_max,
          [this, incarnation](replica::send_tokens&& what) {
            deliver(std::move(what));
            end_if_idle(incarnation);
          });
      one.ready = true;
      changed();
    });
  }

  void aim_at(std::uint32_t target) {
    target_ = target;
    while (wanted_count() < target)
      give_birth(nanoseconds_of(how_.birth_s));
    while (wanted_count() > target)
      give_up();
    changed();
  }

  /// As controller_machine::trim: who is not ready, then the youngest.
  void give_up() {
    std::pair<bool, std::uint64_t> least;
    for (const auto& [incarnation, one] : lives_)
      if (!one.leaving && one.ended_s < 0)
        least = std::max(least, {!one.ready, incarnation});
    auto incarnation = least.second;
    auto& one = lives_.at(incarnation);
    one.leaving = true;
    if (!one.process) {
      one.ended_s = now_s();
      return;
    }
    // Routers have the new table by then.
    events_.after(4 * hop(), [this, incarnation] {
      lives_.at(incarnation).process->drain();
      end_if_idle(incarnation);
    });
  }

  void end_if_idle(std::uint64_t incarnation) {
    auto& one = lives_.at(incarnation);
    if (one.leaving && one.ended_s < 0)
      events_.after(4 * hop(), [this, incarnation] {
        auto& leaver = lives_.at(incarnation);
        if (leaver.ended_s >= 0 || !leaver.process->idle())
          return;
        leaver.ended_s = now_s();
        events_.after(1s, [this, incarnation] { bury(incarnation); });
      });
  }

  /// Nothing is on its way to it any more.
  void bury(std::uint64_t incarnation) {
    auto& process = lives_.at(incarnation).process;
    out_.preemptions += process->stats().preemptions;
    process.reset();
  }

  void changed() {
    tell_routes();
    know();
    out_.sizes.push_back({now_s(), target_, ready_count()});
  }

  // -- the autoscaler

  void begin_scaling() {
    know();
    tick();
  }

  void know() {
    if (!how_.scaling)
      return;
    controller::scaled_models all;
    for (std::size_t i = 0; i < routers_.size(); ++i)
      all.nodes.push_back("node" + std::to_string(i));
    auto& model = all.models.emplace_back();
    model.application = "app";
    model.model = "model";
    model.revision = 1;
    model.scaling = *how_.scaling;
    model.target = target_;
    for (const auto& [incarnation, one] : lives_)
      if (one.ready && !one.leaving)
        model.replicas.push_back(
            {"replica#" + std::to_string(incarnation), incarnation});
    scaler_.know(all);
  }

  void tick() {
    report();
    std::chrono::system_clock::time_point wall{events_.now() -
                                               event_queue::begin};
    for (const auto& order : scaler_.tick(events_.now(), wall))
      if (order.target != target_)
        aim_at(order.target);
    if (ended_ < load_.arrivals.size())
      events_.after(100ms, [this] { tick(); });
  }

  bool is_due(bool is_new, double told_s) const {
    constexpr double slack = 1e-6;
    auto age = now_s() - told_s + slack;
    return age >= how_.report_max_s || (is_new && age >= how_.report_min_s);
  }

  void report() {
    for (auto& [incarnation, one] : lives_) {
      if (!one.process || one.leaving)
        continue;
      auto news = one.process->news();
      news.sequence = one.told.sequence;
      if (!is_due(news != one.told, one.told_s))
        continue;
      ++news.sequence;
      one.told = news;
      one.told_s = now_s();
      events_.after(2 * hop(),
                    [this, news] { scaler_.hear(news, events_.now()); });
    }
    for (std::size_t i = 0; i < routers_.size(); ++i)
      report_router(i);
  }

  void report_router(std::size_t i) {
    auto& one = routers_[i];
    protocol::router_report report;
    report.node = "node" + std::to_string(i);
    report.node_epoch = 1;
    report.incarnation = router_base + i;
    report.sequence = one.told.sequence;
    report.models = one.machine->load();
    if (!is_due(report.models != one.told.models, one.told_s))
      return;
    ++report.sequence;
    one.told = report;
    one.told_s = now_s();
    events_.after(2 * hop(),
                  [this, report] { scaler_.hear(report, events_.now()); });
  }

  void finish() {
    auto end = load_.seconds;
    for (const auto& [incarnation, one] : lives_) {
      auto until = one.ended_s < 0 ? end : std::min(one.ended_s, end);
      out_.replica_hours +=
          std::max(until - std::max(one.born_s, 0.), 0.) / 3600;
      if (one.process)
        out_.preemptions += one.process->stats().preemptions;
    }
  }

  const load& load_;
  const scenario& how_;
  std::mt19937_64 random_;
  event_queue events_;
  std::vector<router_life> routers_;
  std::map<std::uint64_t, life> lives_; // replicas by incarnation
  std::uint64_t last_replica_ = 0;
  std::uint64_t version_ = 0;
  std::uint32_t target_ = 0;
  autoscaler::scaler scaler_;
  std::size_t arrived_ = 0;
  std::size_t ended_ = 0;
  run_outcome out_;
};

} // namespace

run_outcome simulate(const load& what, const scenario& how) {
  return fleet{what, how}.run();
}

} // namespace troupe::bench
