#include "tests/sim/replica_process.hpp"

#include "actors/replica/engine_load.hpp"

#include <csignal>
#include <utility>
#include <variant>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;
using namespace protocol;

// As in replica.cpp.
constexpr nanoseconds tick_interval = 100ms;
constexpr nanoseconds report_interval_max = 1s;
constexpr nanoseconds agent_timeout = 5s;
constexpr nanoseconds agent_retry = 200ms;
constexpr nanoseconds last_word_timeout = 1s;

/// The first protocol version that says so if there is no session.
constexpr std::uint32_t first_with_word = 7;

// Its exit statuses (replica.hpp).
constexpr int exit_stopped = 0;
constexpr int exit_failed = 1;
constexpr int exit_refused = 3;

replica::session_limits limits_of(const replica_spec& spec) {
  replica::session_limits out;
  out.choices_max = spec.max_ongoing_requests;
  return out;
}

} // namespace

replica_process::replica_process(surroundings around, host_id host,
                                 const host_clock& clock, process_id parent,
                                 ledger& book, const codec::bytes& launch,
                                 engine_habits habits)
    : process(around, host, clock, "replica", parent), ledger_(book),
      habits_(std::move(habits)), table_("", 0, {}) {
  auto record = decode_launch_record(launch);
  if (!record)
    around.world.fail("I2", "a launch record cannot be read");
  spec_ = record->spec;
  agent_endpoint_ = record->agent;
  report_.replica = spec_.replica;
  report_.incarnation = record->incarnation;
  report_.phase = replica_phase::loading;
  table_ = replica::session_table{spec_.replica, record->incarnation,
                                  limits_of(spec_), habits_.version};
  report_.version = habits_.version;
}

void replica_process::start() {
  report_.pid = id();
  after(tick_interval, [this] { tick(); });
  after(habits_.load_time, [this] { loaded(); });
  after(around_.world.between(1ms, 20ms), [this] { reach_agent(); });
}

void replica_process::crash(int signal) {
  if (!alive())
    return;
  ledger_.crashed(incarnation(), nullptr, 0, journal_);
  kill({0, signal});
}

void replica_process::crashed(engine::owner killer, std::size_t at) {
  around_.world.trace("poison", spec_.replica, incarnation(), killer.router,
                      killer.record, at);
  ledger_.crashed(incarnation(), &killer, at, journal_);
  kill({0, SIGSEGV});
}

void replica_process::finish(int status) {
  kill({status, 0});
}

// -- messages
// ------------------------------------------------------------------

void replica_process::on_message(link_id from, message& what) {
  switch (what.what) {
  case topic::attach:
    attach(from, what);
    break;
  case topic::generate:
    generate(from, what);
    break;
  case topic::cancel:
    run(table_.cancel(what.a, what.b));
    break;
  case topic::blocks:
    run(table_.follow_blocks(what.a, what.b != 0));
    break;
  case topic::drain:
    drain(milliseconds{what.a});
    break;
  case topic::tune:
    tune(what.body);
    break;
  default:
    break; // meant for a process that had this port before
  }
}

void replica_process::attach(link_id from, const message& ask) {
  auto todo = table_.attach(ask.a, static_cast<std::uint32_t>(ask.b));
  if (!todo) {
    answer(from, ask, {});
    return;
  }
  run(std::move(*todo)); // ends, for who had the session
  sinks_[ask.a] = from;
  watch(from);
  message out;
  out.a = incarnation();
  out.b = habits_.version;
  answer(from, ask, std::move(out));
}

void replica_process::generate(link_id from, const message& what) {
  auto session = sinks_.find(what.a);
  if (habits_.version < first_with_word ||
      (session != sinks_.end() && session->second == from)) {
    run(table_.generate(what.a, what.body, now()));
  } else if (auto batch = table_.without_session(what.body)) {
    message out;
    out.what = topic::tokens;
    out.body = encode(*batch);
    send(from, std::move(out));
  }
}

void replica_process::on_down(link_id link) {
  if (agent_ == link) {
    agent_.reset();
    retry_at_ = now() + agent_retry;
  }
  for (auto i = sinks_.begin(); i != sinks_.end();) {
    auto current = i++;
    if (current->second != link)
      continue;
    auto router = current->first;
    sinks_.erase(current);
    run(table_.router_gone(router));
  }
}

void replica_process::drain(nanoseconds time) {
  if (report_.phase == replica_phase::draining)
    return;
  report_.phase = replica_phase::draining;
  table_.close("the replica is draining");
  drain_until_ = now() + time;
  send_report();
  look();
}

void replica_process::end_if_drained() {
  if (report_.phase == replica_phase::draining && !is_leaving_ &&
      (table_.running() == 0 || now() >= drain_until_))
    leave();
}

void replica_process::leave() {
  is_leaving_ = true;
  if (!agent_ || sinks_.empty()) {
    finish(exit_stopped);
    return;
  }
  ++report_.load.sequence;
  message out;
  out.what = topic::introduce;
  out.body = encode(report_);
  request(*agent_, std::move(out), last_word_timeout,
          [this](const message*) { finish(exit_stopped); });
}

void replica_process::tune(const codec::bytes& bytes) {
  auto wanted = decode_replica_spec(bytes);
  if (!wanted)
    around_.world.fail("I2", "a replica's change cannot be read");
  if (!same_process(spec_, *wanted))
    return;
  spec_ = std::move(*wanted);
  table_.limit_choices(spec_.max_ongoing_requests);
}

// -- what the session table says
// -------------------------------------------------

void replica_process::run(replica::session_commands todo) {
  for (auto& x : todo)
    std::visit([this](auto& y) { obey(y); }, x);
}

void replica_process::obey(replica::submit_choice& x) {
  engine_->submit(std::move(x.request));
}

void replica_process::obey(const replica::cancel_choice& x) {
  engine_->cancel(x.engine_id);
}

void replica_process::obey(const replica::send_tokens& x) {
  auto i = sinks_.find(x.router);
  if (i == sinks_.end())
    return;
  message out;
  out.what = topic::tokens;
  out.body = encode(x.batch, x.version);
  send(i->second, std::move(out));
}

// -- the engine
// ------------------------------------------------------------------

void replica_process::loaded() {
  if (!habits_.loads) {
    report_.phase = replica_phase::failed;
    report_.reason = "the weights are not there";
    table_.close(report_.reason);
    fail_at_ = now() + agent_timeout;
    if (agent_)
      introduce();
    return;
  }
  null_engine::outside out;
  out.on_step = [this](engine::step_result&& step) {
    steps_.push_back(std::move(step));
    after(around_.world.between(1us, 30us), [this] { look(); });
  };
  out.step_begins = [this](std::span<const engine::owner> of) {
    journal_.assign(of.begin(), of.end());
  };
  out.step_ended = [this] { journal_.clear(); };
  out.crash = [this](engine::owner killer, std::size_t at) {
    crashed(killer, at);
  };
  engine_ = std::make_unique<null_engine>(*this, around_.world, habits_.engine,
                                          std::move(out));
  report_.where = {network::address_of(host()), around_.network.listen(id()), 0,
                   incarnation()};
  report_.arithmetic_class = habits_.arithmetic_class;
  report_.device = "null";
  report_.card_hash = "card";
  if (report_.phase == replica_phase::draining)
    return; // told to stop while it loaded
  report_.phase = replica_phase::ready;
  table_.open();
  send_report();
}

void replica_process::look() {
  for (auto& step : std::exchange(steps_, {}))
    run(table_.step(std::move(step)));
  end_if_drained();
}

std::optional<engine::stats> replica_process::engine_now() const {
  return engine_ ? std::optional{engine_->now()} : std::nullopt;
}

// -- the node agent
// ----------------------------------------------------------------

void replica_process::reach_agent() {
  around_.network.connect(id(), agent_endpoint_, agent_timeout,
                          [this](std::optional<link_id> link) {
                            if (!link) {
                              retry_at_ = now() + agent_retry;
                              return;
                            }
                            agent_ = link;
                            watch(*link);
                            introduce();
                          });
}

void replica_process::introduce() {
  ++report_.load.sequence;
  auto was_failed = report_.phase == replica_phase::failed;
  message out;
  out.what = topic::introduce;
  out.body = encode(report_);
  request(*agent_, std::move(out), agent_timeout,
          [this, was_failed](const message* answer) {
            if (was_failed)
              finish(exit_failed);
            else if (answer == nullptr && agent_)
              retry_at_ = now() + agent_retry;
            else if (answer != nullptr && answer->a == 0)
              finish(exit_refused);
          });
}

void replica_process::send_report() {
  report_at_ = now();
  if (!agent_)
    return;
  ++report_.load.sequence;
  last_sent_ = report_;
  message out;
  out.what = topic::report;
  out.body = encode(report_);
  send(*agent_, std::move(out));
}

void replica_process::read_load() {
  if (engine_)
    replica::read_load(engine_->now(), report_.load);
}

void replica_process::tick() {
  after(tick_interval, [this] { tick(); });
  look();
  read_load();
  run(table_.tick(now()));
  if (report_ != last_sent_ || now() >= report_at_ + report_interval_max)
    send_report();
  if (now() >= retry_at_) {
    retry_at_ = local_time::max();
    if (agent_)
      introduce();
    else
      reach_agent();
  }
  if (now() >= fail_at_)
    finish(exit_failed);
  end_if_drained();
}

} // namespace troupe::sim
