#include "engine/text/jinja/arguments.hpp"
#include "engine/text/jinja/filter_functions.hpp"
#include "engine/text/jinja/formatting.hpp"
#include "engine/text/jinja/json.hpp"
#include "engine/text/jinja/text_operations.hpp"

namespace troupe::text::jinja {

namespace {

/// Percent-encodes all but letters, digits, "_.-~" and `safe`.
void append_quoted(const marked_string& text, std::string_view safe,
                   bool plus_for_blank, marked_string& out) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto c = text.text()[i];
    auto byte = static_cast<unsigned char>(c);
    auto stays = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                 (c >= '0' && c <= '9') ||
                 std::string_view{"_.-~"}.find(c) != std::string_view::npos ||
                 safe.find(c) != std::string_view::npos;
    if (stays)
      out.append(text.slice(i, 1));
    else if (c == ' ' && plus_for_blank)
      out.append_like("+", text, i);
    else
      out.append_like(std::string{'%', hex[byte >> 4], hex[byte & 15]}, text,
                      i);
  }
}

marked_string margin_of(meter& cost, const call_arguments& args) {
  const auto* width = args.find(0, "width");
  if (width != nullptr && width->text() != nullptr)
    return *width->text();
  auto spaces = whole_argument(width, "indent", 4);
  return pad(cost, {}, spaces, marked_string{" "}, side::left);
}

} // namespace

runtime_value indent_filter(meter& cost, const runtime_value& v,
                            const call_arguments& args) {
  auto text = printed(cost, v);
  auto margin = margin_of(cost, args);
  auto markup = text.is_markup();
  auto first = flag_argument(args.find(1, "first"), false);
  auto blank = flag_argument(args.find(2, "blank"), false);
  text.append("\n", false);
  auto lines = split_lines(cost, text, false);
  marked_string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto& line = *lines[i].text();
    if (i > 0)
      out.append("\n", false);
    if (i == 0 ? first : blank || !line.empty())
      out.append(margin);
    out.append(line);
    cost.spend(1);
    cost.check_bytes(out.size());
  }
  return make_text(std::move(out).as_markup(markup));
}

runtime_value truncate_filter(meter& cost, const runtime_value& v,
                              const call_arguments& args) {
  auto text = printed(cost, v);
  auto length = whole_argument(args.find(0, "length"), "truncate", 255);
  auto cuts_words = flag_argument(args.find(1, "killwords"), false);
  const auto* given = args.find(2, "end");
  auto end = given ? text_argument(given, "truncate") : marked_string{"..."};
  const auto* leeway = args.find(3, "leeway");
  auto more = leeway && !leeway->is_none() ? whole_argument(leeway, "truncate")
                                           : std::int64_t{5};
  auto end_size = static_cast<std::int64_t>(count_characters(end.text()));
  if (length < end_size || more < 0)
    fail("truncate: the length or the leeway is too small");
  auto size = static_cast<std::int64_t>(count_characters(text.text()));
  if (size <= length || size - length <= more)
    return make_text(std::move(text));
  auto kept =
      first_characters(text, static_cast<std::size_t>(length - end_size));
  auto word_end = kept.text().rfind(' ');
  if (!cuts_words && word_end != std::string::npos)
    kept = kept.slice(0, word_end);
  kept.append(end);
  cost.check_bytes(kept.size());
  return make_text(std::move(kept));
}

runtime_value urlencode_filter(meter& cost, const runtime_value& v,
                               const call_arguments&) {
  marked_string out;
  auto add = [&](const runtime_value& part, bool of_query) {
    append_quoted(printed(cost, part), of_query ? "" : "/", of_query, out);
    cost.check_bytes(out.size());
  };
  if (v.text() || (!v.map() && !v.items())) {
    add(v, false);
    return make_text(std::move(out));
  }
  auto pairs = v.map() ? items_of_dict(*v.map()) : v;
  for (const auto& pair : *pairs.items()) {
    const auto* items = pair.items();
    if (items == nullptr || items->size() != 2)
      fail("urlencode needs pairs");
    if (!out.empty())
      out.append("&", false);
    add((*items)[0], true);
    out.append("=", false);
    add((*items)[1], true);
  }
  return make_text(std::move(out));
}

runtime_value tojson_filter(meter& cost, const runtime_value& v,
                            const call_arguments& args) {
  json_layout layout;
  layout.ascii = flag_argument(args.find(0, "ensure_ascii"), false);
  layout.sort_keys = flag_argument(args.find(3, "sort_keys"), false);
  const auto* indent = args.find(1, "indent");
  if (indent && !indent->is_none()) {
    auto spaces = whole_argument(indent, "tojson");
    if (spaces > 100)
      fail("tojson: the indent is too large");
    layout.indent = static_cast<int>(std::max<std::int64_t>(spaces, 0));
    layout.item_separator = marked_string{","};
  }
  const auto* separators = args.find(2, "separators");
  if (separators && !separators->is_none()) {
    const auto* pair = separators->items();
    if (pair == nullptr || pair->size() != 2)
      fail("tojson: separators must be two texts");
    layout.item_separator = text_argument(&(*pair)[0], "tojson");
    layout.key_separator = text_argument(&(*pair)[1], "tojson");
  }
  return make_text(to_json(cost, v, layout));
}

runtime_value format_filter(meter& cost, const runtime_value& v,
                            const call_arguments& args) {
  if (!args.positional.empty() && !args.named.empty())
    fail("format takes values in order or by name, not both");
  auto format = printed(cost, v);
  if (args.named.empty()) {
    list values;
    values.insert(values.end(), args.positional.begin(), args.positional.end());
    return make_text(
        format_percent(cost, format, make_tuple(std::move(values))));
  }
  dict values;
  for (const auto& [name, item] : args.named)
    values.set(make_text(name), item);
  return make_text(format_percent(cost, format, make_dict(std::move(values))));
}

} // namespace troupe::text::jinja
