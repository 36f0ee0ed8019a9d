#include "engine/text/jinja/arguments.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <algorithm>
#include <array>
#include <ctime>

namespace troupe::text::jinja {

namespace {

constexpr std::size_t range_items_max = 100'000;

constexpr std::array<std::string_view, 7> function_names{
    "cycler",          "dict",        "joiner", "namespace", "range",
    "raise_exception", "strftime_now"};

runtime_value range(meter& cost, const call_arguments& args) {
  std::int64_t bounds[3] = {0, 0, 1};
  auto count = args.positional.size();
  if (count < 1 || count > 3 || !args.named.empty())
    fail("range takes one to three numbers");
  for (std::size_t i = 0; i < count; ++i) {
    bounds[count == 1 ? 1 : i] = whole_argument(&args.positional[i], "range");
  }
  auto [from, to, step] = bounds;
  if (step == 0)
    fail("the step of range must not be zero");
  list out;
  for (auto i = from; step > 0 ? i < to : i > to;) {
    if (out.size() == range_items_max)
      throw render_error{errc::limit, "range gives too many numbers"};
    cost.spend(1);
    out.push_back(i);
    if (__builtin_add_overflow(i, step, &i))
      break;
  }
  return make_list(std::move(out));
}

/// The time comes from outside (seconds since 1970), so that a rendering is a
/// function of its input.
runtime_value time_now(const call_arguments& args, const runtime_value* now) {
  const auto* format = args.find(0, "format");
  const auto* seconds = now ? now->get<std::int64_t>() : nullptr;
  if (seconds == nullptr || format == nullptr || format->text() == nullptr)
    fail("strftime_now needs a format and a clock");
  auto at = static_cast<std::time_t>(*seconds);
  std::tm parts{};
  localtime_r(&at, &parts);
  char text[256];
  auto size =
      std::strftime(text, sizeof text, format->text()->text().c_str(), &parts);
  return make_text(std::string_view{text, size});
}

/// dict(more, a=1): of another dict or of pairs, and of names.
dict fields_of(meter& cost, std::string_view name, const call_arguments& args) {
  dict out;
  if (args.positional.size() > 1)
    fail(std::string{name} + " takes one dict, and names");
  auto set = [&](const runtime_value& key, const runtime_value& v) {
    cost.spend(out.entries.size() / 16 + 1);
    depth_inside(v);
    out.set(key, v);
  };
  if (!args.positional.empty()) {
    const auto& more = args.positional[0];
    if (const auto* map = more.map()) {
      for (const auto& [key, v] : map->entries)
        set(key, v);
    } else {
      auto pairs = iterate(cost, more);
      for (const auto& pair : *pairs) {
        auto parts = iterate(cost, pair);
        if (parts->size() != 2)
          fail(std::string{name} + " takes pairs of a key and a value");
        set((*parts)[0], (*parts)[1]);
      }
    }
  }
  for (const auto& [key, v] : args.named)
    set(make_text(key), v);
  return out;
}

runtime_value make_cycler(const call_arguments& args) {
  if (args.positional.empty() || !args.named.empty())
    fail("cycler needs values");
  list items;
  items.insert(items.end(), args.positional.begin(), args.positional.end());
  auto kept = make_list(std::move(items));
  return std::make_shared<cycler_state>(
      cycler_state{*kept.get<std::shared_ptr<const list>>()});
}

runtime_value make_joiner(meter& cost, const call_arguments& args) {
  constexpr std::array<std::string_view, 1> parameters{"sep"};
  check_arguments(args, "joiner", parameters);
  const auto* by = args.find(0, "sep");
  return std::make_shared<joiner_state>(
      joiner_state{by ? make_text(printed(cost, *by)) : make_text(", ")});
}

} // namespace

bool is_function(std::string_view name) {
  return std::find(function_names.begin(), function_names.end(), name) !=
         function_names.end();
}

runtime_value call_function(meter& cost, std::string_view name,
                            const call_arguments& args,
                            const runtime_value* now) {
  if (name == "raise_exception") {
    const auto* message = args.find(0, "message");
    fail(message ? printed(cost, *message).text()
                 : "the chat template refused");
  }
  if (name == "range")
    return range(cost, args);
  if (name == "strftime_now")
    return time_now(args, now);
  if (name == "cycler")
    return make_cycler(args);
  if (name == "joiner")
    return make_joiner(cost, args);
  auto fields = fields_of(cost, name, args);
  if (name == "namespace")
    return std::make_shared<dict>(std::move(fields));
  return make_dict(std::move(fields));
}

} // namespace troupe::text::jinja
