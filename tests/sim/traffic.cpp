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

client_request traffic::make_request(const std::string& model) {
  auto& w = cluster_.world();
  client_request out;
  out.model = model;
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
  const auto& model = cluster_.world().pick(deployer_.models());
  if (open < open_max && !is_quiet(model))
    send(make_request(model));
}

bool traffic::is_quiet(const std::string& model) {
  auto& w = cluster_.world();
  auto& until = quiet_until_[model];
  if (w.now() >= until && w.chance(0.02))
    until = w.now() + w.between(500ms, 4s);
  return w.now() < until;
}

void traffic::ask_at_rest() {
  for (const auto& model : deployer_.models()) {
    auto request = make_request(model);
    request.deadline_ms = 0;
    request.at_rest = true;
    std::vector<node_process*> nodes;
    for (auto i : cluster_.members())
      if (auto* one = cluster_.node(i);
          one && !one->stopping() && one->router().knows(model))
        nodes.push_back(one);
    auto* router = cluster_.world().pick(nodes);
    send(std::move(request), *router)->submit();
  }
}

void traffic::submit_poison() {
  auto& w = cluster_.world();
  if (poison_ && ++poisonings_ > poisonings_max)
    return;
  if (!poison_ || w.chance(0.5)) {
    poison_ = make_request(w.pick(deployer_.models()));
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
  auto all = cluster_.members();
  auto* router = cluster_.node(w.pick(all));
  if (router == nullptr || !router->started() || router->stopping() ||
      !router->router().knows(what.model))
    return;
  auto choices = what.choices;
  auto* made = send(std::move(what), *router);
  made->submit();
  if (w.chance(0.08))
    w.after(w.between(0ms, 3000ms), [made] { made->cancel(); });
  else if (w.chance(0.08))
    w.after(w.between(0ms, 2000ms), [made, which = w.below(choices)] {
      made->cancel_choice(static_cast<std::uint32_t>(which));
    });
}

client* traffic::send(client_request what, node_process& router) {
  what.number = ++last_number_;
  clients_.push_back(std::make_unique<client>(
      cluster_.world(), cluster_.ledger(), router, std::move(what),
      [this](const std::string& model, instant since) {
        return deployer_.was_deleted(model, since);
      }));
  return clients_.back().get();
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
