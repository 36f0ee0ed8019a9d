#include "actors/runtime/logging.hpp"

#include "actors/runtime/log.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <memory>

namespace troupe::runtime {

namespace {

void append_quoted(std::string_view text, spdlog::memory_buf_t& to) {
  auto out = std::back_inserter(to);
  *out++ = '"';
  for (char c : text) {
    if (c == '"' || c == '\\')
      fmt::format_to(out, "\\{}", c);
    else if (static_cast<unsigned char>(c) < 0x20)
      fmt::format_to(out, "\\u{:04x}", static_cast<int>(c));
    else
      *out++ = c;
  }
  *out++ = '"';
}

/// {"time": "...", "level": "info", "process": "head", "message": "..."}
class json_formatter : public spdlog::formatter {
public:
  explicit json_formatter(std::string process) : process_(std::move(process)) {
    // nop
  }

  void format(const spdlog::details::log_msg& message,
              spdlog::memory_buf_t& to) override {
    auto out = std::back_inserter(to);
    auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                  message.time.time_since_epoch())
                  .count();
    fmt::format_to(out, R"({{"time": "{:%Y-%m-%dT%H:%M:%S}.{:03}Z", "level": )",
                   fmt::gmtime(spdlog::log_clock::to_time_t(message.time)),
                   ms % 1000);
    auto level = spdlog::level::to_string_view(message.level);
    append_quoted({level.data(), level.size()}, to);
    fmt::format_to(out, R"(, "process": )");
    append_quoted(process_, to);
    fmt::format_to(out, R"(, "message": )");
    append_quoted({message.payload.data(), message.payload.size()}, to);
    fmt::format_to(out, "}}\n");
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<json_formatter>(process_);
  }

private:
  std::string process_;
};

/// A '%' would be a directive of the pattern.
std::string escaped_pattern(std::string text) {
  for (auto at = text.find('%'); at != std::string::npos;
       at = text.find('%', at + 2))
    text.insert(at, 1, '%');
  return text;
}

} // namespace

result<void> set_up_logging(const logging_options& options) {
  auto name = options.level;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  auto level = spdlog::level::from_str(name);
  if (level == spdlog::level::off)
    return error{errc::invalid_argument,
                 "unknown log level \"" + options.level + "\""};
  auto logger = std::make_shared<spdlog::logger>(
      options.process, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(level);
  logger->flush_on(spdlog::level::info);
  if (options.json)
    logger->set_formatter(std::make_unique<json_formatter>(options.process));
  else
    logger->set_pattern("%H:%M:%S.%e %L " + escaped_pattern(options.process) +
                        ": %v");
  spdlog::set_default_logger(std::move(logger));
  return {};
}

} // namespace troupe::runtime
