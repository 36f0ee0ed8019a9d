#include "router/held_tokens.hpp"

#include <iterator>
#include <utility>

namespace troupe::router {

namespace {

using protocol::choice_tokens;

/// With twenty candidates each, a frame of so many tokens has some 20 KB.
constexpr std::size_t joined_tokens_max = 8;

template <class T>
void append(std::vector<T>& to, std::vector<T>& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()),
            std::make_move_iterator(from.end()));
}

/// What the first news of a choice alone has stays as it is.
void join(choice_tokens& to, choice_tokens& next) {
  append(to.tokens, next.tokens);
  append(to.logprobs, next.logprobs);
  to.reason = next.reason;
  to.stop_token = next.stop_token;
}

} // namespace

void held_tokens::add(std::uint32_t choice, choice_tokens news, route from) {
  auto* last = last_of(choice);
  // Frames bear the class of the replica that they come from.
  if (last != nullptr &&
      last->from->arithmetic_class == from->arithmetic_class &&
      last->news.tokens.size() + news.tokens.size() <= joined_tokens_max)
    return join(last->news, news);
  last_[choice] = taken_ + entries_.size();
  entries_.push_back({choice, std::move(news), std::move(from)});
}

held_tokens::entry held_tokens::take() {
  auto first = std::move(entries_.front());
  entries_.pop_front();
  if (auto last = last_.find(first.choice); last->second == taken_)
    last_.erase(last);
  ++taken_;
  return first;
}

held_tokens::entry* held_tokens::last_of(std::uint32_t choice) {
  auto found = last_.find(choice);
  return found == last_.end() ? nullptr : &entries_[found->second - taken_];
}

} // namespace troupe::router
