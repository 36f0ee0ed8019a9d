#include "tests/sim/client.hpp"

#include <algorithm>
#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;
using protocol::finish;

/// Less than the router's 30 s by what clocks may differ.
constexpr nanoseconds wait_max = 29s;

} // namespace

void outcome_counts::add(const outcome_counts& x) {
  submitted += x.submitted;
  whole += x.whole;
  cancelled += x.cancelled;
  router_died += x.router_died;
  guilty += x.guilty;
  no_replica += x.no_replica;
  unexplained += x.unexplained;
  model_gone += x.model_gone;
  late += x.late;
  tokens += x.tokens;
}

client::client(world& w, const ledger& book, node_process& router,
               client_request what, deletion_check was_deleted)
    : world_(w), ledger_(book), router_(router), request_(std::move(what)),
      was_deleted_(std::move(was_deleted)),
      request_id_("r" + std::to_string(request_.number)) {
  for (std::uint32_t i = 0; i < request_.choices; ++i) {
    auto params = request_.params;
    params.choice = i;
    choices_.push_back({right_answer(request_.prompt, params), 0, fate::open});
  }
}

void client::submit() {
  router::submission out;
  out.request = request_.number;
  out.application = application_of(request_.model);
  out.model = request_.model;
  for (std::uint32_t i = 0; i < request_.choices; ++i) {
    protocol::request_record record;
    record.request_id = request_id_;
    record.model = request_.model;
    record.prompt = request_.prompt;
    record.params = request_.params;
    record.params.choice = i;
    record.deadline_ms = request_.deadline_ms;
    out.choices.push_back(std::move(record));
  }
  submitted_ = world_.now();
  leapt_before_ = ledger_.leapt();
  world_.trace("submit", request_id_, router_.name(), request_.choices,
               request_.params.max_tokens, request_.poison);
  router_.run([this, out = std::move(out)]() mutable {
    router_.router().submit(std::move(out), this);
  });
}

void client::cancel() {
  if (std::exchange(cancelled_, true) || released_)
    return;
  world_.trace("cancel", request_id_);
  for (auto& x : choices_)
    if (x.end == fate::open)
      x.end = fate::cancelled;
  router_.run([this] {
    if (!released_)
      router_.router().cancel_request(request_.number);
  });
}

void client::cancel_choice(std::uint32_t choice) {
  auto& x = choices_[choice];
  if (x.end != fate::open)
    return;
  world_.trace("cancel choice", request_id_, choice);
  x.end = fate::cancelled;
  router_.run([this, choice] {
    if (!released_)
      router_.router().cancel_choice(request_.number, choice);
  });
}

void client::wrong(const std::string& invariant, const std::string& what) {
  world_.fail(invariant, request_id_ + ": " + what);
}

/// Choices that were cancelled while the router stood still may give more until
/// it hears of that.
void client::on_tokens(std::uint32_t choice,
                       const protocol::choice_tokens& news) {
  if (released_ || choice >= choices_.size())
    wrong("I1", "news of no choice");
  auto& x = choices_[choice];
  if (x.end == fate::cancelled)
    return;
  auto which = "choice " + std::to_string(choice);
  if (x.end != fate::open)
    wrong("I1", which + ": news after its end");
  for (auto id : news.tokens) {
    if (x.received >= x.right.size() || id != x.right[x.received])
      wrong("I2", which + ": token " + std::to_string(x.received) +
                      " is not the right one");
    ++x.received;
  }
  if (news.reason == finish::none)
    return;
  if (x.received != x.right.size())
    wrong("I2", which + ": ends after " + std::to_string(x.received) + " of " +
                    std::to_string(x.right.size()) + " tokens");
  auto stopped = ends_choice(x.right.back());
  if (news.reason != (stopped ? finish::stop : finish::length))
    wrong("I2", which + ": ends for the wrong reason");
  x.end = fate::whole;
}

void client::on_failed(const error& why) {
  world_.trace("failed", request_id_, why.message);
  if (failure_ != failure::none || released_)
    wrong("I1", "fails twice");
  // A router that stood still may not have heard of a cancellation.
  auto is_cancelled = [](const auto& x) { return x.end == fate::cancelled; };
  if (all_ended() &&
      std::none_of(choices_.begin(), choices_.end(), is_cancelled))
    wrong("I1", "fails after its end: " + why.message);
  failure_ = judge(why);
  if (failure_ == failure::none)
    wrong("I1", "fails though it may not: " + why.message);
  for (auto& x : choices_)
    if (x.end == fate::open)
      x.end = fate::failed;
}

/// Why the rules let it fail so; none if they do not.
client::failure client::judge(const error& why) const {
  if (request_.at_rest)
    return failure::none;
  // For who was in a hurry: a replica's host or the router's may have leapt.
  auto age = world_.now() - submitted_ + ledger_.leapt() - leapt_before_;
  if (why.code == errc::internal) {
    // Poison, or replicas died of something else just when they computed this
    // one: twice, once of it alone, or three times.
    auto deaths = ledger_.crashes_beside(request_id_);
    auto unlucky =
        deaths >= 3 || (deaths >= 2 && ledger_.crashes_alone(request_id_) >= 1);
    return request_.poison || unlucky ? failure::guilty : failure::none;
  }
  if (was_deleted_(request_.model, submitted_))
    return failure::model_gone;
  if (why.code == errc::cancelled)
    return request_.deadline_ms != 0 &&
                   age >= milliseconds{request_.deadline_ms} * 9 / 10
               ? failure::late
               : failure::none;
  if (why.code != errc::unavailable)
    return failure::none;
  if (any_unexplained())
    return failure::unexplained;
  return age >= wait_max ? failure::no_replica : failure::none;
}

bool client::any_unexplained() const {
  for (std::uint32_t i = 0; i < choices_.size(); ++i)
    if (choices_[i].received == 0 && ledger_.sendings(request_id_, i) >= 3)
      return true;
  return false;
}

bool client::all_ended() const {
  return std::all_of(choices_.begin(), choices_.end(),
                     [](const auto& x) { return x.end != fate::open; });
}

void client::on_released() {
  if (std::exchange(released_, true))
    wrong("I1", "is released twice");
  if (!all_ended())
    wrong("I1", "is released before its end");
}

std::string client::state() const {
  std::string out = name() + " at " + router_.name() + ":";
  for (const auto& x : choices_)
    out += " " + std::to_string(x.received) + "/" +
           std::to_string(x.right.size()) +
           (x.end == fate::open ? " open" : " ended");
  return out;
}

void client::close(outcome_counts& counts) const {
  ++counts.submitted;
  for (const auto& x : choices_)
    counts.tokens += x.received;
  if (!released_)
    ++counts.router_died;
  else if (failure_ == failure::guilty)
    ++counts.guilty;
  else if (failure_ == failure::no_replica)
    ++counts.no_replica;
  else if (failure_ == failure::unexplained)
    ++counts.unexplained;
  else if (failure_ == failure::model_gone)
    ++counts.model_gone;
  else if (failure_ == failure::late)
    ++counts.late;
  else if (cancelled_)
    ++counts.cancelled;
  else
    ++counts.whole;
}

} // namespace troupe::sim
