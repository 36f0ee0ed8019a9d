#include "router/suspects.hpp"

#include <openssl/sha.h>

#include <algorithm>

namespace troupe::router {

namespace {

/// Deaths of one that was watched, none of which it was alone at.
constexpr std::uint32_t strikes_max = 2;

} // namespace

bool is_blamed(const protocol::death_notice& notice,
               const std::pair<std::uint64_t, std::uint64_t>& choice) {
  auto& running = notice.running;
  return notice.own_fault &&
         std::find(running.begin(), running.end(), choice) != running.end();
}

bool death_notes::add(protocol::death_notice notice) {
  auto incarnation = notice.incarnation;
  if (!notes_.emplace(incarnation, std::move(notice)).second)
    return false;
  order_.push_back(incarnation);
  if (order_.size() > notes_max_) {
    notes_.erase(order_.front());
    order_.pop_front();
  }
  return true;
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

verdict weigh(const protocol::death_notice& notice, const sending& from,
              suspicion_list& known,
              std::chrono::steady_clock::time_point now) {
  auto before = known.find(from.what, now);
  auto weighed = before && before->death == notice.incarnation;
  auto earlier = from.watched || (before && !weighed);
  auto next = before.value_or(suspicion{});
  next.death = notice.incarnation;
  next.tokens = std::max(next.tokens, from.tokens);
  // Several choices of a request may have been there.
  next.strikes += from.watched && !weighed ? 1 : 0;
  known.forget(from.what);
  if (earlier && (notice.running.size() == 1 || next.strikes >= strikes_max))
    return verdict::guilty;
  known.add(from.what, next, now);
  return verdict::suspect;
}

void given_up_sendings::add(std::uint64_t record, sending what) {
  sendings_.emplace(record, std::move(what));
  if (sendings_.size() > sendings_max_)
    sendings_.erase(sendings_.begin());
}

std::optional<sending> given_up_sendings::take(std::uint64_t record) {
  auto known = sendings_.extract(record);
  return known ? std::optional{std::move(known.mapped())} : std::nullopt;
}

} // namespace troupe::router
