#include "cli/commands.hpp"
#include "client/conversation.hpp"
#include "client/exchange.hpp"
#include "client/models.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <optional>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/signalfd.h>
#include <unistd.h>

namespace troupe::cli {

namespace {

namespace asio = boost::asio;

constexpr std::size_t input_bytes_max = 16u << 20;
constexpr auto help =
    "/system TEXT  what the model is told first; none without "
    "TEXT\n"
    "/clear        forget the conversation\n"
    "/model NAME   ask another model\n"
    "/quit         end (as Ctrl-D)\n"
    "Ctrl-C stops an answer.\n";

/// While it lives a SIGINT waits, for this thread and those that it starts.
class held_interrupts {
public:
  held_interrupts() {
    sigemptyset(&interrupt_);
    sigaddset(&interrupt_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &interrupt_, &before_);
  }
  held_interrupts(const held_interrupts&) = delete;
  held_interrupts& operator=(const held_interrupts&) = delete;
  ~held_interrupts() {
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  /// A descriptor that can be read when one waits. The caller's.
  int descriptor() const {
    return ::signalfd(-1, &interrupt_, SFD_NONBLOCK | SFD_CLOEXEC);
  }

private:
  sigset_t interrupt_;
  sigset_t before_;
};

/// From now on a SIGINT that is delivered ends a read of the terminal and
/// nothing else.
void take_interrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(SIGINT, &action, nullptr);
}

/// Lines of standard input. The terminal itself lets the user edit them.
class input {
public:
  enum class outcome { line, interrupted, end };

  outcome read_line(std::string& out) {
    for (;;) {
      if (auto end = buffer_.find('\n'); end != std::string::npos) {
        out = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return outcome::line;
      }
      if (auto stopped = read_more())
        return *stopped;
    }
  }

  /// All of it; what is over the limit is left out.
  std::string read_all() {
    while (buffer_.size() < input_bytes_max && !read_more()) {
    }
    return std::move(buffer_);
  }

private:
  std::optional<outcome> read_more() {
    sigset_t none;
    sigemptyset(&none);
    pollfd waits{STDIN_FILENO, POLLIN, 0};
    if (::ppoll(&waits, 1, nullptr, &none) < 0 && errno == EINTR) {
      buffer_.clear();
      return outcome::interrupted;
    }
    char piece[4096];
    auto n = ::read(STDIN_FILENO, piece, sizeof piece);
    if (n <= 0 || buffer_.size() > input_bytes_max)
      return outcome::end;
    buffer_.append(piece, static_cast<std::size_t>(n));
    return std::nullopt;
  }

  std::string buffer_;
};

/// Nothing that a model could be asked.
bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

class chat_session {
public:
  chat_session(client::service_url where, std::string api_key,
               client::conversation_settings settings)
      : where_(std::move(where)), api_key_(std::move(api_key)),
        talk_(std::move(settings)) {
    // nop
  }

  /// Asks, and prints the answer while it comes. False if there is none.
  bool say(const std::string& text) {
    held_interrupts held;
    asio::io_context io;
    asio::posix::stream_descriptor interrupt{io, held.descriptor()};
    bool stopped = false;
    interrupt.async_wait(asio::posix::stream_descriptor::wait_read,
                         [&](boost::system::error_code failed) {
                           if (failed)
                             return;
                           stopped = true;
                           signalfd_siginfo taken;
                           boost::system::error_code ignored;
                           interrupt.read_some(
                               asio::buffer(&taken, sizeof taken), ignored);
                           io.stop();
                         });
    std::string answered;
    std::string failure;
    auto ask = [&]() -> asio::awaitable<void> {
      client::call what{"POST", "/v1/chat/completions", talk_.request_for(text),
                        api_key_};
      auto got =
          co_await client::exchange(where_, what, [&](std::string_view data) {
            auto piece = client::text_of_event(data, failure);
            print(piece);
            answered += piece;
          });
      interrupt.cancel();
      if (!got)
        failure = got.error().message;
      else if (got->status != 200)
        failure = client::reason_of(*got);
      else if (!got->done && failure.empty())
        failure = "the answer is cut off";
    };
    asio::co_spawn(io, ask, asio::detached);
    io.run();
    print("\n");
    if (!failure.empty())
      fmt::print(stderr, "{}\n", failure);
    if (!answered.empty())
      talk_.keep(text, std::move(answered));
    return failure.empty() || stopped;
  }

  /// A line that begins with '/'. False if it ends the session.
  bool command(std::string_view line) {
    auto blank = std::min(line.find(' '), line.size());
    auto name = line.substr(0, blank);
    auto rest = line.substr(std::min(blank + 1, line.size()));
    if (name == "/quit" || name == "/exit" || name == "/bye")
      return false;
    if (name == "/clear")
      talk_.clear();
    else if (name == "/system")
      talk_.settings().system = rest;
    else if (name == "/model" && !rest.empty())
      talk_.settings().model = rest;
    else
      print(help);
    return true;
  }

private:
  client::service_url where_;
  std::string api_key_;
  client::conversation talk_;
};

int converse(chat_session& session, const std::string& model) {
  fmt::print("{}; /help tells what else there is, Ctrl-D ends.\n", model);
  input lines;
  std::string line;
  // One that comes between an answer and a read waits for the read.
  take_interrupts();
  held_interrupts held;
  for (;;) {
    print("> ");
    auto got = lines.read_line(line);
    if (got == input::outcome::end)
      break;
    if (got == input::outcome::interrupted) {
      print("\n");
      continue;
    }
    if (is_blank(line))
      continue;
    if (line.front() != '/')
      session.say(line);
    else if (!session.command(line))
      return 0;
  }
  print("\n");
  return 0;
}

} // namespace

int chat(const chat_arguments& args) {
  auto where = client::parse_service_url(args.url);
  if (!where) {
    fmt::print(stderr, "{}\n", where.error().message);
    return 2;
  }
  auto model = client::choose_model(*where, args.api_key, args.model);
  if (!model) {
    fmt::print(stderr, "{}\n", model.error().message);
    return model.error().code == errc::invalid_argument ? 2 : 1;
  }
  chat_session session{
      *where,
      args.api_key,
      {*model, args.system, args.temperature, args.max_tokens}};
  if (isatty(STDIN_FILENO))
    return converse(session, *model);
  auto question = input{}.read_all();
  return is_blank(question) || session.say(question) ? 0 : 1;
}

} // namespace troupe::cli
