#include "actors/node_agent/rank_meetings.hpp"

#include <utility>

namespace troupe::node_agent {

namespace {

error unknown() {
  return {errc::not_found, "the node agent knows no such start of a replica"};
}

} // namespace

void rank_meetings::open(std::uint64_t incarnation) {
  meetings_[incarnation];
}

void rank_meetings::close(std::uint64_t incarnation) {
  auto ended = meetings_.extract(incarnation);
  if (!ended)
    return;
  for (auto& [key, done] : ended.mapped().waiting)
    done(error{errc::unavailable, "the replica has ended"});
}

result<void> rank_meetings::put(std::uint64_t incarnation,
                                const std::string& key, codec::bytes word) {
  auto known = meetings_.find(incarnation);
  if (known == meetings_.end())
    return unknown();
  auto& [words, waiting] = known->second;
  if (words.contains(key))
    return error{errc::invalid_argument, "two words for " + key};
  if (words.size() >= keys_max || word.size() > bytes_max)
    return error{errc::limit, "the ranks of a replica say too much"};
  auto [first, last] = waiting.equal_range(key);
  for (auto i = first; i != last; ++i)
    i->second(word);
  waiting.erase(first, last);
  words.emplace(key, std::move(word));
  return {};
}

void rank_meetings::get(std::uint64_t incarnation, const std::string& key,
                        answer done) {
  auto known = meetings_.find(incarnation);
  if (known == meetings_.end()) {
    done(unknown());
    return;
  }
  auto& [words, waiting] = known->second;
  if (auto word = words.find(key); word != words.end())
    done(word->second);
  else if (waiting.size() >= waiting_max)
    done(error{errc::limit, "too many wait for the ranks of a replica"});
  else
    waiting.emplace(key, std::move(done));
}

} // namespace troupe::node_agent
