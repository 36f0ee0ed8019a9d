#pragma once

#include "engine/codec/error.hpp"
#include "engine/text/jinja/ast.hpp"
#include "engine/text/jinja/marked_string.hpp"
#include "engine/text/value.hpp"

#include <cstdint>
#include <memory>
#include <optional>
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

struct loop_state;
struct cycler_state;
struct joiner_state;

/// What a template calls by a name.
struct function_value {
  std::string name; ///< of a function of Jinja's, if `macro` is null
  std::shared_ptr<const macro_definition> macro;
  std::size_t scope = 0; ///< where the macro was defined
};

/// A value while a template runs. Cheap to copy: what is large is shared and
/// never changed, but for namespaces and the states of loops, cyclers and
/// joiners.
struct runtime_value {
  std::variant<undefined, none, bool, std::int64_t, double,
               std::shared_ptr<const marked_string>,
               std::shared_ptr<const list>, std::shared_ptr<const dict>,
               std::shared_ptr<dict>, std::shared_ptr<const function_value>,
               std::shared_ptr<loop_state>, std::shared_ptr<cycler_state>,
               std::shared_ptr<joiner_state>>
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

  const function_value* function() const {
    auto* out = get<std::shared_ptr<const function_value>>();
    return out ? out->get() : nullptr;
  }

  loop_state* loop() const {
    auto* out = get<std::shared_ptr<loop_state>>();
    return out ? out->get() : nullptr;
  }

  cycler_state* cycler() const {
    auto* out = get<std::shared_ptr<cycler_state>>();
    return out ? out->get() : nullptr;
  }

  joiner_state* joiner() const {
    auto* out = get<std::shared_ptr<joiner_state>>();
    return out ? out->get() : nullptr;
  }

  /// A whole number or a boolean, which Python counts as one.
  std::optional<std::int64_t> whole() const {
    if (const auto* b = get<bool>())
      return *b ? 1 : 0;
    const auto* i = get<std::int64_t>();
    return i ? std::optional{*i} : std::nullopt;
  }

  /// A number of any kind.
  std::optional<double> number() const {
    if (auto i = whole())
      return static_cast<double>(*i);
    const auto* d = get<double>();
    return d ? std::optional{*d} : std::nullopt;
  }

  bool is_undefined() const {
    return get<undefined>() != nullptr;
  }

  bool is_none() const {
    return get<none>() != nullptr;
  }
};

/// A dict or namespace in order of insertion. Keys are what Python can hash:
/// texts, numbers, none and tuples of these; 1, 1.0 and true are the same key.
struct dict {
  std::vector<std::pair<runtime_value, runtime_value>> entries;
  std::size_t depth = 1;
  std::size_t weight = 0; ///< see weight_of

  const runtime_value* find(std::string_view key) const;
  const runtime_value* find(const runtime_value& key) const;

  /// An error for a key that cannot be hashed.
  void set(const runtime_value& key, runtime_value value);
};

/// Items in order. Nesting and weight are counted when a list or dict is made,
/// so that no value is ever too deep to walk or free.
class list : public std::vector<runtime_value> {
public:
  using std::vector<runtime_value>::vector;
  std::size_t depth = 1;
  std::size_t weight = 0; ///< see weight_of
  bool tuple = false;     ///< prints as (1, 2)
  bool group = false;     ///< a tuple of `grouper` and `list`
};

/// What `loop` is inside a for, one for all its rounds.
struct loop_state {
  std::shared_ptr<const list> items;
  std::size_t index = 0;
  std::size_t depth = 0;               ///< of a recursive loop
  const for_statement* body = nullptr; ///< of a recursive loop
  std::size_t scope = 0;               ///< around the for
  std::shared_ptr<const list> seen;    ///< what `changed` saw last
};

/// What `cycler` makes.
struct cycler_state {
  std::shared_ptr<const list> items; ///< at least one
  std::size_t at = 0;
};

/// What `joiner` makes: nothing at first, then its text.
struct joiner_state {
  runtime_value text;
  bool used = false;
};

/// The scope of a template's own names; macros of deeper ones end with them.
inline constexpr std::size_t template_scope = 1;

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

/// What walking through a value takes: its items, and the bytes of its texts.
/// Items that are shared count each time. It prints as no fewer bytes.
std::size_t weight_of(const runtime_value&);

/// A value from outside, nested at most value_depth_max deep.
runtime_value to_runtime(const value&, std::size_t depth = 0);

/// As Python's bool(): empty, zero, none and undefined are false.
bool truth(const runtime_value&);

/// As Jinja prints it: str() of Python.
marked_string printed(const runtime_value&);

/// Python's repr(), for what stands inside lists and dicts.
marked_string represented(const runtime_value&);

/// Python's ==; kinds that differ (but for numbers) are never equal.
bool equal(const runtime_value&, const runtime_value&);

/// Python's <; an error for kinds that have no order.
bool less(const runtime_value&, const runtime_value&);

/// Python's repr() of a number.
std::string float_text(double);

/// "int", "str", "list", ... for messages.
std::string_view kind_of(const runtime_value&);

/// What a for loop goes over: items, characters, keys. Undefined has none; an
/// error for what cannot be gone over.
std::shared_ptr<const list> iterate(const runtime_value&);

/// The characters of a text (code points; broken bytes one by one).
std::vector<marked_string> characters(const marked_string&);

/// Bytes of the character at `at`, which is inside of `text`.
std::size_t character_size(std::string_view text, std::size_t at);

} // namespace troupe::text::jinja
