#include "router/suspects.hpp"

#include <openssl/sha.h>

#include <algorithm>

namespace troupe::router {

verdict judge(const protocol::death_notice& notice,
              const std::pair<std::uint64_t, std::uint64_t>& choice,
              bool on_trial) {
  auto& running = notice.running;
  if (!notice.own_fault ||
      std::find(running.begin(), running.end(), choice) == running.end())
    return verdict::bystander;
  return on_trial && running.size() == 1 ? verdict::guilty : verdict::suspect;
}

void death_notes::add(protocol::death_notice notice) {
  auto incarnation = notice.incarnation;
  if (!notes_.emplace(incarnation, std::move(notice)).second)
    return;
  order_.push_back(incarnation);
  if (order_.size() > notes_max_) {
    notes_.erase(order_.front());
    order_.pop_front();
  }
}

const protocol::death_notice*
death_notes::find(std::uint64_t incarnation) const {
  auto known = notes_.find(incarnation);
  return known == notes_.end() ? nullptr : &known->second;
}

// The encoded record is the same for the same values, and tells lists apart.
fingerprint fingerprint_of(const std::string& application,
                           const protocol::request_record& from) {
  protocol::request_record what;
  what.request_id = application;
  what.model = from.model;
  what.prompt = from.prompt;
  what.params = from.params;
  what.params.seed = 0;
  what.params.choice = 0;
  auto bytes = protocol::encode(what);
  fingerprint out;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         out.data());
  return out;
}

void ban_list::add(const fingerprint& what, std::string incident,
                   time_point now) {
  expire(now);
  if (!bans_.emplace(what, ban{now + duration_, std::move(incident)}).second)
    return;
  order_.push_back(what);
  if (order_.size() > bans_max_) {
    bans_.erase(order_.front());
    order_.pop_front();
  }
}

std::optional<std::string> ban_list::find(const fingerprint& what,
                                          time_point now) const {
  auto known = bans_.find(what);
  if (known == bans_.end() || known->second.until <= now)
    return std::nullopt;
  return known->second.incident;
}

void ban_list::expire(time_point now) {
  while (!order_.empty() && bans_.at(order_.front()).until <= now) {
    bans_.erase(order_.front());
    order_.pop_front();
  }
}

} // namespace troupe::router
