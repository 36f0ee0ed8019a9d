#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/jinja/ast.hpp"
#include "engine/text/jinja/marked_string.hpp"
#include "engine/text/value.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace troupe::text::jinja {

/// Thrown while a template runs; `chat_template::render` turns it into a value.
struct render_error {
  errc code = errc::invalid_argument;
  std::string message;
};

[[noreturn]] void fail(std::string message);

struct dict;
struct runtime_value;
class list;

/// A missing variable, key or item. Prints as nothing and is false; using it
/// further is an error that names it.
struct undefined {
  std::string name;
};
struct none {};

/// What `loop` is inside a for. `items` belong to the running loop.
struct loop_state {
  std::shared_ptr<const list> items;
  std::size_t index = 0;
};

/// A value while a template runs. Cheap to copy: what is large is shared and
/// never changed, but for namespaces.
struct runtime_value {
  std::variant<undefined, none, bool, std::int64_t, double,
               std::shared_ptr<const marked_string>,
               std::shared_ptr<const list>, std::shared_ptr<const dict>,
               std::shared_ptr<dict>, std::shared_ptr<const macro_definition>,
               std::shared_ptr<const loop_state>>
      data;

  runtime_value() : data(undefined{}) {
    // nop
  }

  template <class T>
  requires(!std::is_same_v<std::remove_cvref_t<T>, runtime_value>)
      runtime_value(T value)
      : data(std::move(value)) {
    // nop
  }

  template <class T>
  const T* get() const {
    return std::get_if<T>(&data);
  }

  const marked_string* text() const {
    auto* out = get<std::shared_ptr<const marked_string>>();
    return out ? out->get() : nullptr;
  }

  const list* items() const {
    auto* out = get<std::shared_ptr<const list>>();
    return out ? out->get() : nullptr;
  }

  /// A dict; not a namespace.
  const dict* map() const {
    auto* out = get<std::shared_ptr<const dict>>();
    return out ? out->get() : nullptr;
  }

  const dict* name_space() const {
    auto* out = get<std::shared_ptr<dict>>();
    return out ? out->get() : nullptr;
  }

  const loop_state* loop() const {
    auto* out = get<std::shared_ptr<const loop_state>>();
    return out ? out->get() : nullptr;
  }

  bool is_undefined() const {
    return get<undefined>() != nullptr;
  }

  bool is_none() const {
    return get<none>() != nullptr;
  }
};

/// A dict or namespace in order of insertion; keys are texts.
struct dict {
  std::vector<std::pair<marked_string, runtime_value>> entries;
  std::size_t depth = 1;

  const runtime_value* find(std::string_view key) const {
    for (const auto& [name, value] : entries)
      if (name.text() == key)
        return &value;
    return nullptr;
  }

  void set(const marked_string& key, runtime_value value) {
    for (auto& [name, old] : entries)
      if (name.text() == key.text()) {
        old = std::move(value);
        return;
      }
    entries.emplace_back(key, std::move(value));
  }
};

/// Items in order. Nesting is counted when a list or dict is made, so that no
/// value is ever too deep to walk or free.
class list : public std::vector<runtime_value> {
public:
  using std::vector<runtime_value>::vector;
  std::size_t depth = 1;
  bool tuple = false; ///< prints as (1, 2)
};

/// Deepest nesting of lists and dicts.
inline constexpr std::size_t value_depth_max = 64;

runtime_value make_text(marked_string);
runtime_value make_text(std::string_view); ///< template text
runtime_value make_list(list);
runtime_value make_tuple(list);
runtime_value make_dict(dict);

/// Depth of a value that is to be put into a list, dict or namespace: an error
/// if it is too deep, or of a kind that must not stand there.
std::size_t depth_inside(const runtime_value&);

/// A value from outside, nested at most value_depth_max deep.
runtime_value to_runtime(const value&, std::size_t depth = 0);

/// As Python's bool(): empty, zero, none and undefined are false.
bool truth(const runtime_value&);

/// As Jinja prints it: str() of Python.
marked_string printed(const runtime_value&);

/// Python's repr(), for what stands inside lists and dicts.
marked_string represented(const runtime_value&);

/// json.dumps(value, ensure_ascii=False): the separators ", " and ": ", or one
/// entry per line with `indent` >= 0 spaces.
marked_string to_json(const runtime_value&, int indent, bool sort_keys);

/// Python's ==; kinds that differ (but for numbers) are never equal.
bool equal(const runtime_value&, const runtime_value&);

/// Python's <; an error for kinds that have no order.
bool less(const runtime_value&, const runtime_value&);

/// "int", "str", "list", ... for messages.
std::string_view kind_of(const runtime_value&);

/// What a for loop goes over: items, characters, keys. Undefined has none; an
/// error for what cannot be gone over.
std::shared_ptr<const list> iterate(const runtime_value&);

/// The characters of a text (code points; broken bytes one by one).
std::vector<marked_string> characters(const marked_string&);

} // namespace troupe::text::jinja
