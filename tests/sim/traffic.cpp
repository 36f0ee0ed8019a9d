#include "tests/sim/traffic.hpp"

#include "tests/sim/null_engine.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace troupe::sim {

namespace {

using namespace std::chrono_literals;

/// Each may cost two restarts with their pauses.
constexpr int poisonings_max = 4;

/// More than few slow replicas take is waiting, not testing.
constexpr std::ptrdiff_t open_max = 24;

} // namespace

traffic::traffic(cluster& c, const deployer& d) : cluster_(c), deployer_(d) {
  // nop
}

client_request traffic::make_request() {
  auto& w = cluster_.world();
  client_request out;
  out.model = w.pick(deployer_.models());
  out.choices = w.chance(0.7) ? 1 : static_cast<std::uint32_t>(1 + w.below(4));
  auto length = 1 + w.below(60);
  for (std::size_t i = 0; i < length; ++i)
    out.prompt.push_back(static_cast<token_id>(w.below(30'000)));
  out.params.seed = w.random();
  out.params.max_tokens = static_cast<std::uint32_t>(
      w.chance(0.1) ? 1 + w.below(3) : 1 + w.below(80));
  if (w.chance(0.03))
    out.deadline_ms = 100 + w.below(3000);
  return out;
}

void traffic::submit() {
  auto open = std::count_if(clients_.begin(), clients_.end(),
                            [](const auto& x) { return !x->done(); });
  if (open < open_max)
    send(make_request());
}

void traffic::submit_poison() {
  auto& w = cluster_.world();
  if (poison_ && ++poisonings_ > poisonings_max)
    return;
  if (!poison_ || w.chance(0.5)) {
    poison_ = make_request();
    poison_->poison = true;
    poison_->deadline_ms = 0;
    auto answer = right_answer(poison_->prompt, poison_->params).size();
    make_poison(poison_->prompt,
                static_cast<std::uint32_t>(w.below(std::min(answer, 6ul))));
  }
  send(*poison_);
}

void traffic::send(client_request what) {
  auto& w = cluster_.world();
  auto* router = cluster_.node(w.below(cluster_.size()));
  if (router == nullptr || !router->started() ||
      !router->router().knows(what.model))
    return;
  what.number = ++last_number_;
  auto choices = what.choices;
  clients_.push_back(
      std::make_unique<client>(w, cluster_.ledger(), *router, std::move(what),
                               [this](const std::string& model, instant since) {
                                 return deployer_.was_deleted(model, since);
                               }));
  auto* made = clients_.back().get();
  made->submit();
  if (w.chance(0.08))
    w.after(w.between(0ms, 3000ms), [made] { made->cancel(); });
  else if (w.chance(0.08))
    w.after(w.between(0ms, 2000ms), [made, which = w.below(choices)] {
      made->cancel_choice(static_cast<std::uint32_t>(which));
    });
}

const client* traffic::waiting() const {
  for (const auto& x : clients_)
    if (!x->done())
      return x.get();
  return nullptr;
}

outcome_counts traffic::close() const {
  outcome_counts out;
  for (const auto& x : clients_)
    x->close(out);
  return out;
}

} // namespace troupe::sim
