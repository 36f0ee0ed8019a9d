#include "cli/usage.hpp"

#include "config/diagnostics.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include <string_view>
#include <vector>

namespace troupe::cli {

namespace {

std::vector<std::string> verbs_of(const CLI::App& app) {
  std::vector<std::string> out;
  for (const auto* verb : app.get_subcommands(
           [](const CLI::App* one) { return !one->get_group().empty(); }))
    out.push_back(verb->get_name());
  return out;
}

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> out;
  for (const auto* option : app.get_options())
    for (const auto& name : option->get_lnames())
      out.push_back("--" + name);
  return out;
}

/// "unknown verb deplyo; did you mean deploy?"
std::string unknown(std::string_view what, std::string_view word,
                    const std::vector<std::string>& known) {
  auto meant = config::nearest(word, {known.begin(), known.end()});
  return fmt::format("unknown {} {}{}", what, word,
                     meant.empty() ? std::string{}
                                   : fmt::format("; did you mean {}?", meant));
}

/// What `app` says to a word that it does not expect.
std::string unexpected(const CLI::App& app, std::string_view word) {
  if (word.size() > 1 && word.front() == '-')
    return unknown("option", word.substr(0, word.find('=')), options_of(app));
  auto verbs = verbs_of(app);
  return verbs.empty() ? fmt::format("unexpected argument {}", word)
                       : unknown("verb", word, verbs);
}

} // namespace

std::string usage_message(const CLI::App* app, const CLI::Error& why) {
  auto is = [&](CLI::ExitCodes code) {
    return why.get_exit_code() == static_cast<int>(code);
  };
  auto lacks = is(CLI::ExitCodes::RequiredError);
  // What is not known goes first: it may have been meant for what lacks.
  auto tells_unexpected = lacks || is(CLI::ExitCodes::ExtrasError);
  std::string name = "troupe";
  while (!(tells_unexpected && app->remaining_size() > 0) &&
         !app->get_subcommands().empty()) {
    app = app->get_subcommands().back();
    name += " " + app->get_name();
  }
  std::string message = why.what();
  if (tells_unexpected && app->remaining_size() > 0)
    message = unexpected(*app, app->remaining().front());
  else if (lacks && !verbs_of(*app).empty())
    message =
        fmt::format("a verb is missing: {}", fmt::join(verbs_of(*app), ", "));
  return fmt::format("{0}: {1}\n`{0} --help` shows what there is.\n", name,
                     message);
}

CLI::Validator bytes() {
  auto check = [](const std::string& given) {
    double number = 0;
    return CLI::detail::lexical_cast(given, number) && number >= 0 &&
                   number <= 1e15
               ? std::string{}
               : fmt::format("{} is no number of bytes; 4 GiB are {}", given,
                             4ull << 30);
  };
  return {check, "BYTES"};
}

} // namespace troupe::cli
