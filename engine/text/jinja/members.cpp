#include "engine/text/jinja/builtins.hpp"

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
  auto place = [&](std::size_t size) -> std::optional<std::size_t> {
    auto out = *at < 0 ? *at + static_cast<std::int64_t>(size) : *at;
    if (out < 0 || out >= static_cast<std::int64_t>(size))
      return std::nullopt;
    return static_cast<std::size_t>(out);
  };
  if (const auto* items = object.items()) {
    if (auto i = place(items->size()))
      return (*items)[*i];
  } else {
    auto all = characters(*object.text());
    if (auto i = place(all.size()))
      return make_text(std::move(all[*i]));
  }
  return undefined{"item " + std::to_string(*at)};
}

} // namespace troupe::text::jinja
