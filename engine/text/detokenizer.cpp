#include "engine/text/detokenizer.hpp"

#include "engine/text/utf8.hpp"

namespace troupe::text {

detokenizer::detokenizer(std::shared_ptr<const tokenizer> tok,
                         bool skip_special)
    : tokenizer_(std::move(tok)), skip_special_(skip_special) {
  // nop
}

void detokenizer::push(token_id id, std::string& out) {
  if (skip_special_ && tokenizer_->is_special(id))
    return;
  pending_ += tokenizer_->bytes_of(id);
  std::string_view rest = pending_;
  while (!rest.empty()) {
    auto unit = first_utf8_unit(rest);
    if (unit.what == utf8_unit::kind::incomplete)
      break;
    out += unit.what == utf8_unit::kind::character ? rest.substr(0, unit.size)
                                                   : replacement_character;
    rest.remove_prefix(unit.size);
  }
  pending_.erase(0, pending_.size() - rest.size());
}

void detokenizer::finish(std::string& out) {
  append_replaced(pending_, out);
  pending_.clear();
}

} // namespace troupe::text
