#include "actors/replica/session_table.hpp"

#include <algorithm>
#include <optional>

namespace troupe::replica {

using protocol::choice_tokens;
using protocol::finish;
using protocol::request_record;

namespace {

/// The id of a record that may be broken elsewhere.
std::optional<std::uint64_t> id_of(codec::bytes_view record) {
  codec::reader in{record};
  codec::field next;
  std::uint64_t id = 0;
  while (in.next(next))
    if (next.tag == 1 && next.get(id))
      return id;
  return std::nullopt;
}

finish to_finish(engine::finish_reason from) {
  switch (from) {
  case engine::finish_reason::none:
    return finish::none;
  case engine::finish_reason::stop:
    return finish::stop;
  case engine::finish_reason::length:
    return finish::length;
  case engine::finish_reason::cancelled:
    return finish::cancelled;
  case engine::finish_reason::error:
    return finish::error;
  }
  return finish::error;
}

using logprob_lists = std::vector<std::vector<protocol::token_logprob>>;

logprob_lists
to_logprobs(const std::vector<std::vector<engine::candidate>>& from) {
  logprob_lists out;
  out.reserve(from.size());
  for (const auto& position : from) {
    auto& list = out.emplace_back();
    list.reserve(position.size());
    for (const auto& x : position)
      list.push_back({x.id, x.logprob});
  }
  return out;
}

} // namespace

session_table::session_table(std::string replica, std::uint64_t incarnation,
                             session_limits limits, std::uint32_t version)
    : replica_(std::move(replica)), incarnation_(incarnation), limits_(limits),
      version_(version) {
  limit_choices(limits.choices_max);
}

void session_table::limit_choices(std::uint32_t choices_max) {
  constexpr auto bound = session_limits::choices_bound;
  limits_.choices_max = choices_max == 0 ? bound : std::min(choices_max, bound);
}

result<session_commands> session_table::attach(std::uint64_t router,
                                               std::uint32_t version) {
  if (router == 0)
    return error{errc::invalid_argument, "a router needs an incarnation"};
  if (!protocol::understand_each_other(version, version_))
    return error{errc::unsupported, "the router speaks protocol version " +
                                        std::to_string(version) + ", replica " +
                                        replica_ + " " +
                                        std::to_string(version_)};
  if (!routers_.contains(router) && routers_.size() >= limits_.routers_max)
    return error{errc::limit, "the replica serves too many routers"};
  auto lost = ends_of(router);
  auto out = abandon(router);
  routers_[router] = std::min(version, version_);
  blocks_.leave(router);
  if (!lost.empty())
    out.push_back(to_router(router, std::move(lost)));
  work_.enter(router); // what it heard before its session is nothing
  return out;
}

std::optional<protocol::token_batch>
session_table::without_session(codec::bytes_view record) const {
  auto id = id_of(record);
  if (!id)
    return std::nullopt;
  protocol::token_batch out;
  out.replica = replica_;
  out.incarnation = incarnation_;
  auto& news = out.choices.emplace_back();
  news.id = *id;
  news.reason = finish::cancelled;
  out.no_session = true;
  return out;
}

session_commands session_table::generate(std::uint64_t router,
                                         codec::bytes_view bytes,
                                         clock::time_point now) {
  if (!routers_.contains(router))
    return {};
  auto record = protocol::decode_request_record(bytes, version_);
  if (!record) {
    auto id = id_of(bytes);
    return id ? refuse(router, *id, record.error()) : session_commands{};
  }
  if (auto admitted = admit(router, *record); !admitted)
    return refuse(router, record->id, admitted.error());
  auto engine_id = next_engine_id_++;
  choice made{router, record->id};
  made.given = tokens_given(*record);
  made.tokens = tokens_to_do(*record);
  work_.add(router, made.tokens);
  if (record->deadline_ms != 0) {
    constexpr std::uint64_t longest_ms = 1000ull * 60 * 60 * 24 * 365;
    made.deadline = now + std::chrono::milliseconds{
                              std::min(record->deadline_ms, longest_ms)};
  }
  choices_.emplace(engine_id, made);
  engine_ids_.emplace(record_key{router, record->id}, engine_id);
  session_commands out;
  out.push_back(submit_choice{{engine_id,
                               std::move(record->prompt),
                               std::move(record->output),
                               std::move(record->params),
                               {router, record->id},
                               record->second_text,
                               record->alone ? protocol::alone_tokens : 0}});
  tell_misled(out);
  return out;
}

result<void> session_table::admit(std::uint64_t router,
                                  const request_record& record) const {
  if (!open_)
    return error{errc::unavailable, closed_because_};
  if (choices_.size() - leaving_ >= limits_.choices_max ||
      choices_.size() >= session_limits::living_bound)
    return error{errc::limit, "the replica has " +
                                  std::to_string(limits_.choices_max) +
                                  " requests already"};
  if (engine_ids_.contains({router, record.id}))
    return error{errc::invalid_argument, "the request's id is in use"};
  return {};
}

session_commands session_table::refuse(std::uint64_t router, std::uint64_t id,
                                       const error& why) {
  choice_tokens news;
  news.id = id;
  news.reason = finish::error;
  news.code = why.code;
  news.message = why.message;
  session_commands out;
  out.push_back(to_router(router, {std::move(news)}));
  return out;
}

send_tokens session_table::to_router(std::uint64_t router,
                                     std::vector<choice_tokens> choices) {
  work_.told(router);
  return {router,
          {replica_,
           incarnation_,
           last_step_,
           std::move(choices),
           {},
           waiting_,
           work_.beside(router),
           few_rows_us_,
           many_rows_us_},
          routers_.at(router)};
}

/// Routers of before version 6 know nothing of others.
void session_table::tell_misled(session_commands& out) {
  constexpr std::uint32_t first_version = 6;
  for (auto router : work_.misled())
    if (routers_.at(router) >= first_version)
      out.push_back(to_router(router, {}));
}

void session_table::note_first_token(choice& of) {
  work_.take(of.router, of.given);
  of.tokens -= of.given;
  of.given = 0;
}

/// Its router may send another one in its place at once, before the engine's
/// next step lets it go.
void session_table::leave(choice& x) {
  if (x.leaving)
    return;
  ++leaving_;
  x.leaving = true;
  work_.take(x.router, x.tokens);
}

session_commands session_table::cancel(std::uint64_t router, std::uint64_t id) {
  auto i = engine_ids_.find({router, id});
  if (i == engine_ids_.end())
    return {};
  leave(choices_.at(i->second));
  return {cancel_choice{i->second}};
}

session_commands session_table::router_gone(std::uint64_t router) {
  auto out = abandon(router);
  routers_.erase(router);
  blocks_.leave(router);
  work_.leave(router);
  tell_misled(out);
  return out;
}

session_commands session_table::follow_blocks(std::uint64_t router,
                                              bool wanted) {
  blocks_.leave(router);
  if (!wanted || !routers_.contains(router))
    return {};
  auto out = to_router(router, {});
  out.batch.blocks = blocks_.follow(router);
  return {std::move(out)};
}

/// The ends of all choices of a router.
std::vector<choice_tokens> session_table::ends_of(std::uint64_t router) const {
  std::vector<choice_tokens> out;
  for (auto i = engine_ids_.lower_bound({router, 0});
       i != engine_ids_.end() && i->first.first == router; ++i) {
    auto& ended = out.emplace_back();
    ended.id = i->first.second;
    ended.reason = finish::cancelled;
  }
  return out;
}

session_commands session_table::abandon(std::uint64_t router) {
  session_commands out;
  auto i = engine_ids_.lower_bound({router, 0});
  while (i != engine_ids_.end() && i->first.first == router) {
    auto& left = choices_.at(i->second);
    leave(left);
    left.router = 0;
    out.push_back(cancel_choice{i->second});
    i = engine_ids_.erase(i);
  }
  return out;
}

session_commands session_table::step(engine::step_result&& from) {
  last_step_ = from.now.steps;
  waiting_ = from.now.waiting;
  few_rows_us_ = from.now.few_rows_us;
  many_rows_us_ = from.now.many_rows_us;
  std::map<std::uint64_t, std::vector<choice_tokens>> news; // by router
  for (auto& output : from.outputs) {
    auto i = choices_.find(output.id);
    if (i == choices_.end())
      continue;
    const auto ended = output.finish != engine::finish_reason::none;
    auto& whose = i->second;
    if (whose.leaving)
      leaving_ -= ended ? 1 : 0;
    else if (ended)
      work_.take(whose.router, whose.tokens);
    else if (!output.tokens.empty())
      note_first_token(whose);
    if (whose.router != 0) {
      if (ended)
        engine_ids_.erase({whose.router, whose.id});
      news[whose.router].push_back(to_tokens(std::move(output), whose));
    }
    if (ended) {
      choices_.erase(i);
    }
  }
  std::map<std::uint64_t, protocol::kv_events> changes; // by router
  if (!from.blocks.stored.empty() || !from.blocks.dropped.empty()) {
    blocks_.take(from.blocks);
    for (auto router : blocks_.followers()) {
      changes[router] = blocks_.changes_for(router, from.blocks);
      news[router]; // also to who has no choice in the step
    }
  }
  session_commands out;
  for (auto& [router, choices] : news) {
    auto batch = to_router(router, std::move(choices));
    batch.batch.blocks = std::move(changes[router]);
    out.push_back(std::move(batch));
  }
  tell_misled(out);
  return out;
}

choice_tokens session_table::to_tokens(engine::output&& from,
                                       const choice& whose) const {
  choice_tokens out;
  out.id = whose.id;
  out.tokens = std::move(from.tokens);
  out.logprobs = to_logprobs(from.logprobs);
  out.prompt_logprobs = to_logprobs(from.prompt_logprobs);
  out.vector = std::move(from.vector);
  out.cached_tokens = from.cached_tokens;
  out.reason = to_finish(from.finish);
  out.stop_token = from.stop_token;
  if (out.reason == finish::error) {
    out.code = from.code;
    out.message = std::move(from.message);
  } else if (out.reason == finish::cancelled && whose.late) {
    out.reason = finish::error;
    out.code = errc::cancelled;
    out.message = "the request's deadline has passed";
  }
  return out;
}

session_commands session_table::tick(clock::time_point now) {
  session_commands out;
  for (auto& [engine_id, x] : choices_) {
    if (x.deadline > now || x.late || x.router == 0)
      continue;
    x.late = true;
    leave(x);
    out.push_back(cancel_choice{engine_id});
  }
  return out;
}

void session_table::open() {
  open_ = true;
}

void session_table::close(std::string why) {
  open_ = false;
  closed_because_ = std::move(why);
}

} // namespace troupe::replica
