#include "node/serve_document.hpp"

#include "router/api/json_writer.hpp"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>

namespace troupe::node {

namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

std::string quoted(std::string_view text) {
  api::json_writer json;
  json.text(text);
  return json.take();
}

bool begins_with(std::string_view text,
                 std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](auto one) { return text.starts_with(one); });
}

/// An environment variable that nobody should read off a screen.
bool looks_secret(std::string_view name, std::string_view value) {
  std::string upper{name};
  for (auto& c : upper)
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  constexpr std::array<std::string_view, 7> words{
      "TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH"};
  return std::any_of(words.begin(), words.end(),
                     [&](auto word) {
                       return upper.find(word) != std::string::npos;
                     }) ||
         begins_with(value, {"hf_", "sk-", "ghp_", "xox", "AKIA", "Bearer "});
}

void show(element value, std::string& out);

/// The members of an object, each by `show_member(name, value)`.
template <class Show>
void show_object(element value, std::string& out, Show show_member) {
  out += '{';
  auto comma = false;
  auto members = value.get_object().value_unsafe();
  for (auto [name, member] : members) {
    if (comma)
      out += ',';
    comma = true;
    out += quoted(name);
    out += ':';
    show_member(name, member);
  }
  out += '}';
}

void show_environment(element value, std::string& out) {
  if (!value.is_object())
    return show(value, out);
  show_object(value, out, [&](std::string_view name, element text) {
    std::string_view given;
    if (text.get(given) != simdjson::SUCCESS)
      given = {};
    if (looks_secret(name, given))
      out += quoted(config::hidden_value);
    else
      show(text, out);
  });
}

/// An entry of api_keys: what the key is good for may be seen.
void show_key(element value, std::string& out) {
  if (!value.is_object()) {
    out += quoted(config::hidden_value);
    return;
  }
  show_object(value, out, [&](std::string_view name, element member) {
    out += name == "key" ? quoted(config::hidden_value)
                         : std::string{simdjson::minify(member)};
  });
}

void show_keys(element value, std::string& out) {
  simdjson::dom::array keys;
  std::size_t count = 0;
  if (value.get(keys) == simdjson::SUCCESS)
    count = static_cast<std::size_t>(std::distance(keys.begin(), keys.end()));
  out += '[';
  for (std::size_t i = 0; i < count; ++i) {
    out += i == 0 ? "" : ",";
    show_key(keys.at(i).value(), out);
  }
  out += ']';
}

void show(element value, std::string& out) {
  if (value.is_object())
    return show_object(value, out, [&](std::string_view name, element member) {
      if (name == "api_keys")
        show_keys(member, out);
      else if (name == "env_vars")
        show_environment(member, out);
      else
        show(member, out);
    });
  simdjson::dom::array list;
  if (value.get(list) != simdjson::SUCCESS) {
    out += simdjson::minify(value);
    return;
  }
  out += '[';
  auto comma = false;
  for (auto one : list) {
    if (comma)
      out += ',';
    comma = true;
    show(one, out);
  }
  out += ']';
}

/// Takes the document apart: its applications, and what is beside them.
void store_document(element document, controller::deployment& out) {
  std::string rest;
  auto members = document.get_object().value_unsafe();
  for (auto [name, member] : members) {
    if (name == "applications")
      continue;
    rest += (rest.empty() ? "" : ",") + quoted(name) + ":" +
            simdjson::minify(member);
  }
  out.rest_json = "{" + rest + "}";
  simdjson::dom::array applications;
  if (document["applications"].get(applications) != simdjson::SUCCESS)
    return;
  for (auto one : applications) {
    std::string_view name = "default";
    if (one["name"].get(name) != simdjson::SUCCESS)
      name = "default"; // as Ray has it
    out.applications.push_back({std::string{name}, simdjson::minify(one)});
  }
}

} // namespace

read_document_result read_document(const std::string& json,
                                   const std::string& name, bool cpu_only,
                                   std::uint64_t now) {
  read_document_result out;
  auto refuse = [&](std::string why) {
    out.findings.error({name, 0, 0}, "", std::move(why));
    return std::move(out);
  };
  if (json.size() > document_bytes_max)
    return refuse("larger than 4 MiB");
  simdjson::dom::parser parser;
  element document;
  if (auto code = parser.parse(json).get(document))
    return refuse(std::string{"not valid JSON: "} +
                  simdjson::error_message(code));
  if (!document.is_object())
    return refuse("must be a JSON object");
  auto loaded = config::load_text(json, name);
  out.findings = std::move(loaded.findings);
  if (out.findings.has_errors())
    return out;
  out.wanted = controller::to_deployment(loaded.values, cpu_only, now);
  store_document(document, *out.wanted);
  return out;
}

std::string shown_document(const controller::deployment& from) {
  auto out = from.rest_json.empty() ? std::string{"{}"} : from.rest_json;
  out.pop_back();
  if (out.size() > 1)
    out += ',';
  out += "\"applications\":[";
  for (const auto& one : from.applications) {
    if (&one != &from.applications.front())
      out += ',';
    out += one.json;
  }
  return without_secrets(out + "]}");
}

std::string without_secrets(const std::string& json) {
  simdjson::dom::parser parser;
  element document;
  if (parser.parse(json).get(document) != simdjson::SUCCESS)
    return "null"; // what cannot be read cannot be shown either
  std::string out;
  show(document, out);
  return out;
}

} // namespace troupe::node
