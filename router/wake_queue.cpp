#include "router/wake_queue.hpp"

#include <fmt/format.h>

#include <iterator>

namespace troupe::router {

namespace {

void add_waiting(std::vector<protocol::router_load>& to,
                 const wake_queue::model_key& model, std::uint32_t count) {
  for (auto& one : to)
    if (one.application == model.first && one.model == model.second) {
      one.waiting += count;
      return;
    }
  to.push_back({model.first, model.second, count, 0});
}

} // namespace

bool wake_queue::add(const model_key& model, waiter who, time_point now) {
  std::lock_guard lock{mutex_};
  auto& line = waiting_[model];
  if (line.size() >= limits_.waiting_max)
    std::erase_if(line, [](const entry& one) { return !one.who.waits(); });
  if (line.size() >= limits_.waiting_max)
    return false;
  line.push_back({now, std::move(who)});
  return true;
}

std::deque<wake_queue::entry> wake_queue::take(const model_key& model) {
  std::lock_guard lock{mutex_};
  auto found = waiting_.extract(model);
  return found ? std::move(found.mapped()) : std::deque<entry>{};
}

void wake_queue::woken(const model_key& model) {
  for (auto& one : take(model))
    one.who.go_on();
}

void wake_queue::failed(const model_key& model, const error& why) {
  for (auto& one : take(model))
    one.who.fail(why);
}

void wake_queue::expire(time_point now) {
  std::vector<entry> late;
  {
    std::lock_guard lock{mutex_};
    for (auto& [model, line] : waiting_)
      while (!line.empty() && now - line.front().since >= limits_.wait_max) {
        late.push_back(std::move(line.front()));
        line.pop_front();
      }
    std::erase_if(waiting_, [](const auto& one) { return one.second.empty(); });
  }
  auto seconds = std::chrono::duration<double>{limits_.wait_max}.count();
  for (auto& one : late)
    one.who.fail(
        {errc::unavailable,
         fmt::format("The model did not wake within {:g} seconds.", seconds)});
}

void wake_queue::close(const error& why) {
  for (const auto& model : models())
    failed(model, why);
}

std::vector<wake_queue::model_key> wake_queue::models() const {
  std::lock_guard lock{mutex_};
  std::vector<model_key> out;
  for (const auto& [model, line] : waiting_)
    out.push_back(model);
  return out;
}

std::vector<protocol::router_load>
wake_queue::load(std::vector<protocol::router_load> held) {
  std::lock_guard lock{mutex_};
  for (auto& [model, line] : waiting_) {
    std::erase_if(line, [](const entry& one) { return !one.who.waits(); });
    if (!line.empty())
      add_waiting(held, model, static_cast<std::uint32_t>(line.size()));
  }
  std::erase_if(waiting_, [](const auto& one) { return one.second.empty(); });
  return held;
}

} // namespace troupe::router
