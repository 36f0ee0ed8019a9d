#include "router/tenants.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace troupe::router {

namespace {

using std::chrono::milliseconds;

/// As OpenAI writes times: "20ms", "7.66s", "1m30s".
std::string time_text(milliseconds time) {
  auto ms = time.count();
  if (ms < 1000)
    return fmt::format("{}ms", ms);
  auto minutes = ms / 60'000;
  auto seconds =
      fmt::format("{:.10g}s", static_cast<double>(ms % 60'000) / 1e3);
  return minutes == 0 ? seconds : fmt::format("{}m{}", minutes, seconds);
}

std::uint32_t whole_seconds(milliseconds time) {
  return static_cast<std::uint32_t>(
      std::max<milliseconds::rep>((time.count() + 999) / 1000, 1));
}

/// `what`: "requests" or "tokens".
api::api_error over_limit(std::string_view what, std::uint64_t limit,
                          std::uint64_t asked,
                          std::optional<milliseconds> wait) {
  api::api_error out;
  out.status = 429;
  out.type = what;
  out.code = "rate_limit_exceeded";
  if (wait) {
    out.message =
        fmt::format("The key's limit of {} {} per minute is reached; try again "
                    "in {}.",
                    limit, what, time_text(*wait));
    out.retry_after_s = whole_seconds(*wait);
  } else {
    out.message = fmt::format("The prompt has {} tokens, more than the key's "
                              "limit of {} tokens per minute.",
                              asked, limit);
  }
  return out;
}

void add_headers(std::string_view what, const rate_limit& limit,
                 tenant_account::time_point now, http::header_list& out) {
  if (limit.per_minute() == 0)
    return;
  out.emplace_back(fmt::format("x-ratelimit-limit-{}", what),
                   fmt::format("{}", limit.per_minute()));
  out.emplace_back(fmt::format("x-ratelimit-remaining-{}", what),
                   fmt::format("{}", limit.left(now)));
  out.emplace_back(fmt::format("x-ratelimit-reset-{}", what),
                   time_text(limit.full_in(now)));
}

} // namespace

tenant_account::tenant_account(const protocol::tenant& who)
    : name_(who.name), weight_(who.weight), priority_(who.priority),
      choices_per_replica_(who.choices_per_replica),
      requests_(who.requests_per_minute), tokens_(who.tokens_per_minute) {
  used_.tenant = name_;
}

void tenant_account::change(const protocol::tenant& who, time_point now) {
  std::lock_guard lock{mutex_};
  weight_ = who.weight;
  priority_ = who.priority;
  choices_per_replica_ = who.choices_per_replica;
  requests_.change(who.requests_per_minute, now);
  tokens_.change(who.tokens_per_minute, now);
}

double tenant_account::weight() const {
  std::lock_guard lock{mutex_};
  return weight_;
}

std::int32_t tenant_account::priority() const {
  std::lock_guard lock{mutex_};
  return priority_;
}

std::uint32_t tenant_account::choices_per_replica() const {
  std::lock_guard lock{mutex_};
  return choices_per_replica_;
}

std::optional<api::api_error> tenant_account::take_request(time_point now) {
  std::lock_guard lock{mutex_};
  auto verdict = requests_.take(1, now);
  if (verdict.taken) {
    ++used_.requests;
    return std::nullopt;
  }
  ++refused_;
  return over_limit("requests", requests_.per_minute(), 1, verdict.wait);
}

std::optional<api::api_error> tenant_account::take_prompt(std::uint64_t tokens,
                                                          time_point now) {
  std::lock_guard lock{mutex_};
  auto verdict = tokens_.take(tokens, now);
  if (verdict.taken) {
    used_.tokens += tokens;
    return std::nullopt;
  }
  ++refused_;
  return over_limit("tokens", tokens_.per_minute(), tokens, verdict.wait);
}

void tenant_account::charge(std::uint64_t tokens, time_point now) {
  std::lock_guard lock{mutex_};
  tokens_.charge(tokens, now);
  used_.tokens += tokens;
}

void tenant_account::used_elsewhere(const protocol::tenant_use& sum,
                                    bool same_life, time_point now) {
  std::lock_guard lock{mutex_};
  if (same_life && sum.requests > elsewhere_.requests)
    requests_.charge(sum.requests - elsewhere_.requests, now);
  if (same_life && sum.tokens > elsewhere_.tokens)
    tokens_.charge(sum.tokens - elsewhere_.tokens, now);
  elsewhere_ = sum;
}

http::header_list tenant_account::headers(time_point now) const {
  std::lock_guard lock{mutex_};
  http::header_list out;
  add_headers("requests", requests_, now, out);
  add_headers("tokens", tokens_, now, out);
  return out;
}

bool tenant_account::is_limited() const {
  std::lock_guard lock{mutex_};
  return requests_.per_minute() != 0 || tokens_.per_minute() != 0;
}

protocol::tenant_use tenant_account::used() const {
  std::lock_guard lock{mutex_};
  return used_;
}

std::uint64_t tenant_account::refused() const {
  std::lock_guard lock{mutex_};
  return refused_;
}

tenants::tenants()
    : anybody_(std::make_shared<tenant_account>(protocol::tenant{})) {
  // nop
}

void tenants::follow(const protocol::router_settings& said) {
  auto now = std::chrono::steady_clock::now();
  std::map<std::string_view, const protocol::tenant*> by_key;
  for (const auto& one : said.tenants)
    by_key[one.api_key] = &one;
  std::map<std::string, std::shared_ptr<tenant_account>> before;
  for (const auto& account : all())
    before[account->name()] = account;
  auto next = std::make_shared<roster>();
  next->keys = api_keys{said.api_keys};
  auto& accounts = next->accounts;
  for (const auto& key : said.api_keys) {
    protocol::tenant who;
    who.name = fmt::format("key-{}", accounts.size() + 1);
    if (auto known = by_key.find(key); known != by_key.end())
      who = *known->second;
    auto& kept = before[who.name];
    if (kept)
      kept->change(who, now);
    else
      kept = std::make_shared<tenant_account>(who);
    accounts.push_back(kept);
  }
  std::lock_guard lock{mutex_};
  roster_ = std::move(next);
}

std::shared_ptr<const tenants::roster> tenants::now() const {
  std::lock_guard lock{mutex_};
  return roster_;
}

std::shared_ptr<tenant_account>
tenants::find(const http::request& request) const {
  auto those = now();
  if (those->accounts.empty())
    return anybody_;
  auto place = those->keys.find(request);
  return place ? those->accounts[*place] : nullptr;
}

bool tenants::several() const {
  return now()->accounts.size() > 1;
}

std::vector<std::shared_ptr<tenant_account>> tenants::all() const {
  return now()->accounts;
}

std::vector<protocol::tenant_use> tenants::used() const {
  std::vector<protocol::tenant_use> out;
  for (const auto& account : all())
    if (account->is_limited())
      out.push_back(account->used());
  return out;
}

void tenants::used_elsewhere(const protocol::others_load& others) {
  auto now = std::chrono::steady_clock::now();
  std::map<std::string_view, const protocol::tenant_use*> sums;
  for (const auto& sum : others.tenants)
    sums[sum.tenant] = &sum;
  bool same_life = false;
  {
    std::lock_guard lock{mutex_};
    same_life = std::exchange(life_, others.life) == others.life;
  }
  for (const auto& account : all()) {
    auto sum = sums.find(account->name());
    account->used_elsewhere(sum == sums.end() ? protocol::tenant_use{}
                                              : *sum->second,
                            same_life, now);
  }
}

} // namespace troupe::router
