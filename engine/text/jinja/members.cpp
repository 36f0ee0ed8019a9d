#include "engine/text/jinja/text_operations.hpp"

namespace troupe::text::jinja {

namespace {

runtime_value loop_member(const loop_state& loop, std::string_view name) {
  auto size = static_cast<std::int64_t>(loop.items->size());
  auto at = static_cast<std::int64_t>(loop.index);
  auto depth = static_cast<std::int64_t>(loop.depth);
  if (name == "index")
    return at + 1;
  if (name == "index0")
    return at;
  if (name == "revindex")
    return size - at;
  if (name == "revindex0")
    return size - at - 1;
  if (name == "first")
    return at == 0;
  if (name == "last")
    return at + 1 == size;
  if (name == "length")
    return size;
  if (name == "depth")
    return depth + 1;
  if (name == "depth0")
    return depth;
  if (name == "previtem" && at > 0)
    return (*loop.items)[loop.index - 1];
  if (name == "nextitem" && at + 1 < size)
    return (*loop.items)[loop.index + 1];
  return undefined{"loop." + std::string{name}};
}

} // namespace

runtime_value attribute_of(const runtime_value& object, std::string_view name) {
  if (const auto* missing = object.get<undefined>())
    fail("\"" + missing->name + "\" is undefined");
  if (const auto* loop = object.loop())
    return loop_member(*loop, name);
  if (const auto* cycler = object.cycler(); cycler && name == "current")
    return (*cycler->items)[cycler->at];
  if (const auto* items = object.items(); items && items->group)
    if (name == "grouper" || name == "list")
      return (*items)[name == "list" ? 1 : 0];
  const auto* map = object.map() ? object.map() : object.name_space();
  if (map != nullptr)
    if (const auto* found = map->find(name))
      return *found;
  return undefined{std::string{name}};
}

runtime_value item_of(const runtime_value& object, const runtime_value& index) {
  if (const auto* key = index.text())
    return attribute_of(object, key->text());
  if (const auto* missing = object.get<undefined>())
    fail("\"" + missing->name + "\" is undefined");
  if (const auto* map = object.map()) {
    const auto* found = map->find(index);
    return found ? *found : runtime_value{undefined{"an item"}};
  }
  auto at = index.whole();
  if (!at || (object.items() == nullptr && object.text() == nullptr))
    return undefined{"an item"};
  const auto* items = object.items();
  auto size = static_cast<std::int64_t>(
      items ? items->size() : count_characters(object.text()->text()));
  auto place = *at < 0 ? *at + size : *at;
  if (place < 0 || place >= size)
    return undefined{"item " + std::to_string(*at)};
  auto index_there = static_cast<std::size_t>(place);
  if (items)
    return (*items)[index_there];
  const auto& text = *object.text();
  auto from = first_characters(text, index_there).size();
  return make_text(text.slice(from, character_size(text.text(), from)));
}

} // namespace troupe::text::jinja
