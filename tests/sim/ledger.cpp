#include "tests/sim/ledger.hpp"

#include <algorithm>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

/// A router waits 300 ms for a word on why; less what drift and ticks take.
constexpr nanoseconds notice_wait = 250ms;

std::string text_of(const std::vector<token_id>& prompt) {
  return {reinterpret_cast<const char*>(prompt.data()),
          prompt.size() * sizeof(token_id)};
}

} // namespace

void ledger::sent(std::uint64_t router, std::uint64_t replica,
                  const protocol::request_record& record) {
  auto choice = record.params.choice;
  for (auto& one : crashes_[router])
    if (one.by.request_id == record.request_id && one.by.choice == choice &&
        !one.received)
      one.received = record.output.size();
  auto& last = last_[{record.request_id, choice}];
  last = {replica, record.id, last.count + 1};
  records_[{router, record.id}] = {record.request_id, choice,
                                   text_of(record.prompt), record.output.size(),
                                   world_.now()};
}

void ledger::delivered(std::uint64_t router, const std::string& request_id,
                       std::uint32_t choice, std::uint64_t replica,
                       const protocol::choice_tokens& news) {
  auto last = last_.find({request_id, choice});
  if (last == last_.end() || last->second.record != news.id ||
      last->second.replica != replica)
    world_.fail("I4", request_id + " choice " + std::to_string(choice) +
                          ": router " + std::to_string(router) +
                          " took tokens of an earlier sending");
  received_[{request_id, choice}] += news.tokens.size();
}

void ledger::crashed(std::uint64_t replica, const engine::owner* killer,
                     std::size_t at, const std::vector<engine::owner>& step) {
  std::set<std::string> beside;
  for (const auto& one : step)
    if (auto known = records_.find({one.router, one.record});
        known != records_.end())
      beside.insert(known->second.request_id);
  for (const auto& request : beside)
    ++beside_[request];
  if (step.size() == 1 && beside.size() == 1)
    ++alone_[*beside.begin()];
  if (killer == nullptr)
    return;
  auto known = records_.find({killer->router, killer->record});
  if (known == records_.end())
    world_.fail("I2", "a replica computes what no router sent");
  // One that the router had lost before computed for nobody any more.
  if (!lost_.contains({killer->router, replica}))
    crashes_[killer->router].push_back({replica, known->second, at});
}

void ledger::told(std::uint64_t router, const protocol::death_notice& notice,
                  local_time at) {
  told_.try_emplace({router, notice.incarnation}, told_at{world_.now(), at});
}

void ledger::lost(std::uint64_t router, std::uint64_t replica, local_time at) {
  lost_.try_emplace({router, replica}, at);
}

std::size_t ledger::sendings(const std::string& request_id,
                             std::uint32_t choice) const {
  auto known = last_.find({request_id, choice});
  return known == last_.end() ? 0 : known->second.count;
}

std::size_t ledger::crashes_beside(const std::string& request_id) const {
  auto known = beside_.find(request_id);
  return known == beside_.end() ? 0 : known->second;
}

std::size_t ledger::crashes_alone(const std::string& request_id) const {
  auto known = alone_.find(request_id);
  return known == alone_.end() ? 0 : known->second;
}

bool ledger::told_in_time(std::uint64_t router, std::uint64_t replica) const {
  auto told = told_.find({router, replica});
  if (told == told_.end())
    return false;
  auto lost = lost_.find({router, replica});
  return lost == lost_.end() ||
         told->second.local <= lost->second + notice_wait;
}

bool ledger::counts(std::uint64_t router, const crash& x) const {
  auto final = received_.find({x.by.request_id, x.by.choice});
  auto received =
      x.received.value_or(final == received_.end() ? 0 : final->second);
  return told_in_time(router, x.replica) &&
         x.at < received + protocol::alone_tokens;
}

void ledger::check_poison() const {
  struct losses {
    instant known = instant::max(); ///< that it is poison
    std::size_t in_trials = 0;
    std::size_t after_trials = 0;
  };
  for (const auto& [router, crashes] : crashes_) {
    std::map<std::string, losses> of;
    for (const auto& one : crashes)
      if (counts(router, one)) {
        auto& known = of[one.by.prompt].known;
        known = std::min(known, told_.at({router, one.replica}).at);
      }
    for (const auto& one : crashes) {
      auto& x = of[one.by.prompt];
      if (one.by.at > x.known && counts(router, one))
        ++(one.at < one.by.tokens + protocol::alone_tokens ? x.in_trials
                                                           : x.after_trials);
    }
    for (const auto& [prompt, x] : of)
      if (x.in_trials > 1 || x.after_trials > 1)
        world_.fail("I1", "a prompt that is known to end replicas has ended " +
                              std::to_string(x.in_trials) + " tried alone, " +
                              std::to_string(x.after_trials) +
                              " later, of one router");
  }
}

} // namespace troupe::sim
