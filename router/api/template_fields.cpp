#include "router/api/template_fields.hpp"

#include "config/template_names.hpp"
#include "router/api/request_fields.hpp"

#include <fmt/format.h>

namespace troupe::api {

namespace dom = simdjson::dom;

namespace {

/// Makes values of JSON and counts what they cost.
class value_maker {
public:
  explicit value_maker(bool trusted) : trusted_(trusted) {
    // nop
  }

  /// False past a bound.
  bool make_map(dom::object from, text::value& out, std::size_t depth = 0) {
    text::value::map map;
    for (auto [key, item] : from) {
      bytes_ += key.size();
      if (!make(item, map.emplace_back(std::string{key}, text::value{}).second,
                depth + 1))
        return false;
    }
    out.data = std::move(map);
    return bytes_ <= template_kwargs_bytes_max;
  }

  bool make_list(dom::array from, text::value& out, std::size_t depth = 0) {
    text::value::list list;
    for (auto item : from)
      if (!make(item, list.emplace_back(), depth + 1))
        return false;
    out.data = std::move(list);
    return true;
  }

private:
  bool make(dom::element from, text::value& out, std::size_t depth) {
    if (depth > template_values_depth_max || ++values_ > template_values_max)
      return false;
    switch (from.type()) {
    case dom::element_type::ARRAY:
      return make_list(from.get<dom::array>().value_unsafe(), out, depth);
    case dom::element_type::OBJECT:
      return make_map(from.get<dom::object>().value_unsafe(), out, depth);
    case dom::element_type::STRING:
      return make_text(from.get<std::string_view>().value_unsafe(), out);
    case dom::element_type::INT64:
      out.data = from.get<std::int64_t>().value_unsafe();
      return true;
    case dom::element_type::BOOL:
      out.data = from.get<bool>().value_unsafe();
      return true;
    case dom::element_type::NULL_VALUE:
      return true;
    default:
      out.data = from.get<double>().value_unsafe();
      return true;
    }
  }

  bool make_text(std::string_view from, text::value& out) {
    bytes_ += from.size();
    out = trusted_ ? text::value::trusted(from) : text::value::content(from);
    return bytes_ <= template_kwargs_bytes_max;
  }

  bool trusted_;
  std::size_t values_ = 0;
  std::size_t bytes_ = 0;
};

std::string bounds_of_values() {
  return fmt::format("{} values, nested {} deep, of {} bytes in all.",
                     template_values_max, template_values_depth_max,
                     template_kwargs_bytes_max);
}

std::string bounds() {
  return fmt::format("may have {} names and {}", template_names_max,
                     bounds_of_values());
}

/// The name of the first argument that a template gets from elsewhere.
std::optional<std::string> reserved_name(dom::object object) {
  for (auto [key, item] : object)
    if (config::is_reserved_template_name(key))
      return std::string{key};
  return std::nullopt;
}

void read_kwargs(field_reader& fields, chat_request& request) {
  auto object = fields.object("chat_template_kwargs");
  if (!object)
    return;
  if (auto name = reserved_name(*object))
    return fields.refuse(
        "chat_template_kwargs",
        fmt::format("must not hold {}, which the request says elsewhere.",
                    *name));
  text::value all;
  if (object->size() > template_names_max ||
      !value_maker{false}.make_map(*object, all))
    return fields.refuse("chat_template_kwargs", bounds());
  request.template_kwargs = std::move(std::get<text::value::map>(all.data));
}

/// A list of objects that the template sees.
void read_objects(field_reader& fields, std::string_view name,
                  const chat_request& request,
                  std::optional<text::value>& place) {
  auto list = fields.list(name);
  if (!list)
    return;
  for (const auto& [given, value] : request.template_kwargs)
    if (given == name)
      return fields.refuse(name,
                           "must not be in chat_template_kwargs as well.");
  std::size_t index = 0;
  for (auto item : *list) {
    if (!item.is_object())
      return fields.refuse(item_path(std::string{name}, index),
                           "must be an object.");
    ++index;
  }
  if (!value_maker{false}.make_list(*list, place.emplace()))
    fields.refuse(name, "may have " + bounds_of_values());
}

} // namespace

void read_template_fields(field_reader& fields, chat_request& request) {
  fields.text("chat_template", template_bytes_max, request.chat_template);
  read_kwargs(fields, request);
  read_objects(fields, "documents", request, request.documents);
  read_objects(fields, "tools", request, request.tools);
}

result<text::value::map> read_operator_kwargs(std::string_view json) {
  auto wrong = [](std::string_view why) {
    return error{errc::invalid_argument,
                 fmt::format("default_chat_template_kwargs: {}", why)};
  };
  if (json.empty())
    return text::value::map{};
  if (json.size() > template_kwargs_bytes_max)
    return wrong("larger than 1 MiB");
  dom::parser parser;
  dom::element root;
  dom::object object;
  if (parser.parse(json.data(), json.size()).get(root) || root.get(object))
    return wrong("no JSON object");
  if (auto name = reserved_name(object))
    return wrong(fmt::format("must not hold {}", *name));
  text::value all;
  if (object.size() > template_names_max ||
      !value_maker{true}.make_map(object, all))
    return wrong(bounds());
  return std::move(std::get<text::value::map>(all.data));
}

} // namespace troupe::api
