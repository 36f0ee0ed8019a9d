#include "router/model_cards.hpp"

#include "actors/runtime/log.hpp"

#include <boost/asio/post.hpp>

#include <algorithm>
#include <set>

namespace troupe::router {

namespace {

constexpr std::chrono::seconds retry_pause{1};

} // namespace

model_cards::model_cards(fetch how) : fetch_(std::move(how)) {
  // nop
}

model_cards::~model_cards() {
  stop();
}

void model_cards::follow(const protocol::routing_table& table) {
  std::vector<ready> dropped;
  {
    std::lock_guard lock{mutex_};
    std::map<model_key, std::string> hashes;
    for (auto& [hash, card] : cards_)
      card.replicas.clear();
    for (auto& model : table.models) {
      model_key key{model.application, model.model};
      if (auto known = hashes_.find(key); known != hashes_.end())
        hashes[key] = known->second;
      if (!model.replicas.empty())
        hashes[key] = model.replicas.front().card_hash;
      for (auto& replica : model.replicas)
        cards_[replica.card_hash].replicas.push_back(replica.where);
    }
    hashes_ = std::move(hashes);
    std::erase_if(cards_, [&](auto& one) {
      auto used = !one.second.replicas.empty() ||
                  std::any_of(hashes_.begin(), hashes_.end(), [&](auto& model) {
                    return model.second == one.first;
                  });
      if (!used)
        std::move(one.second.waiting.begin(), one.second.waiting.end(),
                  std::back_inserter(dropped));
      return !used;
    });
    for (auto& [hash, card] : cards_)
      if (!card.done && !card.loading && !stopped_ && !card.replicas.empty())
        load(hash, card);
  }
  for (auto& then : dropped)
    then(error{errc::unavailable, "The model was removed."});
}

void model_cards::get(const std::string& hash, ready then) {
  text_result now = error{errc::unavailable, "The model card is not here."};
  {
    std::lock_guard lock{mutex_};
    auto known = cards_.find(hash);
    if (known != cards_.end() && !stopped_) {
      auto& card = known->second;
      if (!card.done && !card.loading && !card.replicas.empty() &&
          std::chrono::steady_clock::now() >= card.retry_at)
        load(hash, card);
      if (card.loading) {
        card.waiting.push_back(std::move(then));
        return;
      }
      now = card.text;
    }
  }
  then(std::move(now));
}

std::shared_ptr<const model_text>
model_cards::find(const std::string& hash) const {
  std::lock_guard lock{mutex_};
  auto known = cards_.find(hash);
  if (known == cards_.end() || !known->second.text)
    return nullptr;
  return *known->second.text;
}

std::shared_ptr<const model_text>
model_cards::find(const std::string& application,
                  const std::string& model) const {
  std::string hash;
  {
    std::lock_guard lock{mutex_};
    auto known = hashes_.find({application, model});
    if (known == hashes_.end())
      return nullptr;
    hash = known->second;
  }
  return find(hash);
}

void model_cards::stop() {
  std::vector<ready> waiting;
  {
    std::lock_guard lock{mutex_};
    stopped_ = true;
    for (auto& [hash, card] : cards_) {
      std::move(card.waiting.begin(), card.waiting.end(),
                std::back_inserter(waiting));
      card.waiting.clear();
    }
  }
  for (auto& then : waiting)
    then(error{errc::unavailable, "The router is stopping."});
  loader_.stop();
  loader_.join();
}

void model_cards::load(const std::string& hash, card& what) {
  what.loading = true;
  boost::asio::post(loader_, [this, hash, replicas = what.replicas] {
    text_result made =
        error{errc::internal, "The model card could not be read."};
    try {
      made = fetch_and_make(hash, replicas);
    } catch (const std::exception& e) {
      spdlog::error("router: model card {}: {}", hash, e.what());
    }
    loaded(hash, std::move(made));
  });
}

model_cards::text_result
model_cards::fetch_and_make(const std::string& hash,
                            const std::vector<protocol::endpoint>& replicas) {
  text_result last = error{errc::unavailable, "The model card is not here."};
  for (auto& replica : replicas) {
    if (std::lock_guard lock{mutex_}; stopped_)
      return last;
    auto bytes = fetch_(replica, hash);
    if (bytes)
      return model_text::make(*bytes);
    last = bytes.error();
  }
  return last;
}

// Whoever waits is called without the lock.
void model_cards::loaded(const std::string& hash, text_result text) {
  std::vector<ready> waiting;
  {
    std::lock_guard lock{mutex_};
    auto known = cards_.find(hash);
    if (known == cards_.end())
      return;
    auto& card = known->second;
    card.loading = false;
    // What a replica does not have now it may have later; a card that makes no
    // text side never will.
    card.done = text || (text.error().code != errc::unavailable &&
                         text.error().code != errc::not_found &&
                         text.error().code != errc::io);
    card.retry_at = std::chrono::steady_clock::now() + retry_pause;
    card.text = text;
    waiting.swap(card.waiting);
  }
  if (!text)
    spdlog::error("router: model card {}: {}", hash, text.error().message);
  for (auto& then : waiting)
    then(text);
}

} // namespace troupe::router
