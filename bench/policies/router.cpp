#include "bench/policies/router.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace troupe::bench {

namespace {

class table_router final : public simulated_router {
public:
  table_router(event_queue& events, router_outside outside,
               std::uint64_t incarnation, std::uint64_t seed)
      : events_(events), outside_(std::move(outside)),
        table_({}, seed, incarnation) {
    // nop
  }

  void submit(std::uint64_t request, protocol::request_record record) override {
    router::submission what;
    what.request = request;
    what.application = "app";
    what.model = "model";
    what.choices.push_back(std::move(record));
    run(table_.submit(std::move(what), events_.now()));
  }

  void route_by(const protocol::routing_table& table) override {
    run(table_.route_by(table, events_.now()));
  }

  void attached(std::uint64_t replica) override {
    run(table_.attached(replica, events_.now()));
  }

  void tokens(protocol::token_batch batch) override {
    run(table_.tokens(std::move(batch), events_.now()));
  }

  std::vector<protocol::router_load> load() const override {
    return table_.load(events_.now());
  }

private:
  void run(router::command_list commands) {
    for (auto& one : commands)
      std::visit([this](auto& what) { obey(what); }, one);
    arm();
  }

  void obey(const router::command::attach& what) {
    outside_.attach(what.where.incarnation);
  }
  void obey(const router::command::generate& what) {
    outside_.generate(what.incarnation, what.record,
                      std::stoull(what.record.request_id));
  }
  void obey(const router::command::cancel& what) {
    outside_.cancel(what.incarnation, what.id);
  }
  void obey(const router::command::follow_blocks& what) {
    outside_.follow_blocks(what.incarnation, what.follow);
  }
  void obey(const router::command::deliver& what) {
    outside_.news(what.request, what.news);
  }
  void obey(const router::command::fail& what) {
    outside_.failed(what.request, what.what);
  }
  template <class Other>
  void obey(const Other&) { // for logs and metrics, or nothing to do here
  }

  void arm() {
    auto next = table_.next_deadline();
    if (!next || (armed_ && *armed_ <= *next))
      return;
    armed_ = next;
    events_.at(*next + std::chrono::milliseconds{1}, [this] {
      if (armed_ && *armed_ <= events_.now())
        armed_.reset();
      run(table_.tick(events_.now()));
    });
  }

  event_queue& events_;
  router_outside outside_;
  router::request_table table_;
  std::optional<time_point> armed_;
};

class random_router final : public simulated_router {
public:
  random_router(router_outside outside, std::uint64_t seed)
      : outside_(std::move(outside)), random_(seed) {
    // nop
  }

  void submit(std::uint64_t request, protocol::request_record record) override {
    waiting_.emplace_back(request, std::move(record));
    pump();
  }

  void route_by(const protocol::routing_table& table) override {
    std::set<std::uint64_t> listed;
    for (const auto& model : table.models)
      for (const auto& one : model.replicas) {
        listed.insert(one.where.incarnation);
        if (known_.insert(one.where.incarnation).second)
          outside_.attach(one.where.incarnation);
      }
    std::erase_if(open_, [&](auto one) { return !listed.contains(one); });
  }

  void attached(std::uint64_t replica) override {
    open_.push_back(replica);
    pump();
  }

  void tokens(protocol::token_batch batch) override {
    for (const auto& news : batch.choices) {
      auto whose = sent_.find(news.id);
      if (whose == sent_.end())
        continue;
      auto request = whose->second;
      if (news.reason != protocol::finish::none)
        sent_.erase(whose);
      if (news.reason == protocol::finish::error)
        outside_.failed(request, {news.code, news.message});
      else
        outside_.news(request, news);
    }
  }

  std::vector<protocol::router_load> load() const override {
    return {{"app", "model", static_cast<std::uint32_t>(waiting_.size()),
             static_cast<std::uint32_t>(sent_.size())}};
  }

private:
  void pump() {
    while (!waiting_.empty() && !open_.empty()) {
      auto [request, record] = std::move(waiting_.front());
      waiting_.pop_front();
      record.id = ++last_id_;
      sent_[record.id] = request;
      outside_.generate(open_[random_() % open_.size()], record, request);
    }
  }

  router_outside outside_;
  std::mt19937_64 random_;
  std::set<std::uint64_t> known_;
  std::vector<std::uint64_t> open_;
  std::deque<std::pair<std::uint64_t, protocol::request_record>> waiting_;
  std::map<std::uint64_t, std::uint64_t> sent_; // request by record
  std::uint64_t last_id_ = 0;
};

} // namespace

std::unique_ptr<simulated_router> make_table_router(event_queue& events,
                                                    router_outside outside,
                                                    std::uint64_t incarnation,
                                                    std::uint64_t seed) {
  return std::make_unique<table_router>(events, std::move(outside), incarnation,
                                        seed);
}

std::unique_ptr<simulated_router> make_random_router(router_outside outside,
                                                     std::uint64_t seed) {
  return std::make_unique<random_router>(std::move(outside), seed);
}

} // namespace troupe::bench
