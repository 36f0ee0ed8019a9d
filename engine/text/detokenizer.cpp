#include "engine/text/detokenizer.hpp"

#include "engine/text/utf8.hpp"

namespace troupe::text {

detokenizer::detokenizer(std::shared_ptr<const tokenizer> tok,
                         bool skip_special)
    : tokenizer_(std::move(tok)), skip_special_(skip_special),
      strips_left_(tokenizer_->strip_of_text().count) {
  // nop
}

void detokenizer::push(token_id id, std::string& out) {
  if (skip_special_ && tokenizer_->is_special(id))
    return;
  pending_ +=
      is_at_front_ ? tokenizer_->bytes_at_front(id) : tokenizer_->bytes_of(id);
  is_at_front_ = false;
  strip_front(false);
  std::string_view rest = strips_left_ > 0 ? std::string_view{} : pending_;
  auto held = pending_.size() - rest.size();
  while (!rest.empty()) {
    auto unit = first_utf8_unit(rest);
    if (unit.what == utf8_unit::kind::incomplete)
      break;
    out += unit.what == utf8_unit::kind::character ? rest.substr(0, unit.size)
                                                   : replacement_character;
    rest.remove_prefix(unit.size);
  }
  pending_.erase(0, pending_.size() - rest.size() - held);
}

// Takes from the front of the whole text what the tokenizer does not show. What
// may still become such a text waits, unless this is the end.
void detokenizer::strip_front(bool is_end) {
  const auto& text = tokenizer_->strip_of_text().text;
  while (strips_left_ > 0 && pending_.starts_with(text)) {
    pending_.erase(0, text.size());
    --strips_left_;
  }
  if (is_end || !std::string_view{text}.starts_with(pending_))
    strips_left_ = 0;
}

void detokenizer::finish(std::string& out) {
  strip_front(true);
  append_replaced(pending_, out);
  pending_.clear();
}

} // namespace troupe::text
