#include "engine/weights/download/http_session.hpp"

#include "engine/weights/download/url.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <optional>
#include <random>
#include <thread>

namespace troupe::download {

namespace {

constexpr std::size_t headers_max = 256;

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

/// Once per process, before the first handle.
void prepare_curl() {
  static const auto done = curl_global_init(CURL_GLOBAL_DEFAULT);
  static_cast<void>(done);
}

/// Sees a transfer that does not get on: fewer bytes within `stall_max` than
/// `stall_bytes` of each second.
class stall_watch {
public:
  explicit stall_watch(milliseconds stall_max) : stall_max_(stall_max) {
    // nop
  }

  /// `bytes`: so many came since the transfer began.
  bool is_stalled(std::uint64_t bytes) {
    auto now = clock::now();
    auto enough = static_cast<std::uint64_t>(stall_max_.count()) *
                  transfer_limits::stall_bytes / 1000;
    if (bytes - counted_ >= enough) {
      counted_ = bytes;
      since_ = now;
    }
    return now - since_ > stall_max_;
  }

private:
  using clock = std::chrono::steady_clock;

  milliseconds stall_max_;
  clock::time_point since_ = clock::now();
  std::uint64_t counted_ = 0;
};

/// What curl calls back during one transfer.
struct exchange {
  explicit exchange(milliseconds stall_max) : watch(stall_max) {
    // nop
  }

  http_response response;
  std::size_t body_bytes_max = 0;
  body_reader* reader = nullptr;
  const cancelled* is_cancelled = nullptr;
  bool body_began = false;
  stall_watch watch;
  bool stalled = false;
  std::optional<error> refused; ///< by the reader or a bound

  bool streams() const {
    return reader && response.status / 100 == 2;
  }

  bool keep(const result<void>& done) {
    if (!done)
      refused = done.error();
    return done.has_value();
  }

  bool take(std::string_view bytes) {
    if (streams()) {
      if (!body_began) {
        body_began = true;
        if (!keep(reader->begin(response)))
          return false;
      }
      return keep(reader->take(bytes));
    }
    auto room = body_bytes_max - response.body.size();
    if (bytes.size() > room && response.status / 100 == 2)
      return keep(error{errc::limit, "the answer is too long"});
    response.body += bytes.substr(0, room);
    return true;
  }

  void take_header(std::string_view line) {
    if (line.starts_with("HTTP/")) {
      response.headers.clear(); // of an interim answer, or a proxy's
      auto space = line.find(' ');
      if (space != line.npos)
        std::from_chars(line.data() + space + 1, line.data() + line.size(),
                        response.status);
      return;
    }
    auto colon = line.find(':');
    if (colon == line.npos || response.headers.size() >= headers_max)
      return;
    http_header header;
    header.name = line.substr(0, colon);
    std::transform(header.name.begin(), header.name.end(), header.name.begin(),
                   lower);
    auto value = line.substr(colon + 1);
    auto begin = value.find_first_not_of(" \t");
    auto end = value.find_last_not_of(" \t\r\n");
    if (begin != value.npos)
      header.value = value.substr(begin, end - begin + 1);
    response.headers.push_back(std::move(header));
  }
};

std::size_t on_body(char* data, std::size_t, std::size_t size, void* to) {
  return static_cast<exchange*>(to)->take({data, size}) ? size : 0;
}

std::size_t on_header(char* data, std::size_t, std::size_t size, void* to) {
  static_cast<exchange*>(to)->take_header({data, size});
  return size;
}

/// Called with every piece, and at least once a second.
int on_progress(void* to, curl_off_t, curl_off_t came, curl_off_t, curl_off_t) {
  auto& now = *static_cast<exchange*>(to);
  now.stalled = now.watch.is_stalled(static_cast<std::uint64_t>(came));
  return now.stalled || (*now.is_cancelled)() ? 1 : 0;
}

/// What another try may mend.
bool is_passing(CURLcode code) {
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_CONNECT:
  case CURLE_OPERATION_TIMEDOUT:
  case CURLE_PARTIAL_FILE:
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_ERROR:
  case CURLE_RECV_ERROR:
  case CURLE_SSL_CONNECT_ERROR:
    return true;
  default:
    return false;
  }
}

using header_list = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

header_list list_of(const std::vector<http_header>& headers) {
  curl_slist* list = nullptr;
  for (const auto& header : headers)
    list = curl_slist_append(list, (header.name + ": " + header.value).c_str());
  return {list, curl_slist_free_all};
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 ||
         status == 308;
}

} // namespace

std::string_view http_response::header(std::string_view name) const {
  for (auto i = headers.rbegin(); i != headers.rend(); ++i)
    if (i->name == name)
      return i->value;
  return {};
}

struct http_session::state {
  transfer_limits limits;
  std::filesystem::path ca_file;
  cancelled is_cancelled;
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl{nullptr,
                                                           curl_easy_cleanup};

  void prepare(const http_request& request) {
    auto* c = curl.get();
    curl_easy_reset(c);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(c, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    if (!ca_file.empty())
      curl_easy_setopt(c, CURLOPT_CAINFO, ca_file.c_str());
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(limits.connect_max.count()));
    curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "troupe");
    if (request.method == "HEAD")
      curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    else
      curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }

  void connect(exchange& to) {
    auto* c = curl.get();
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &to);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, &to);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, &to);
  }

  /// One request, no redirect followed.
  result<http_response> once(const http_request& request, body_reader* reader) {
    prepare(request);
    exchange now{limits.stall_max};
    now.body_bytes_max = request.body_bytes_max;
    now.reader = reader;
    now.is_cancelled = &is_cancelled;
    connect(now);
    if (!reader)
      curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS,
                       static_cast<long>(limits.answer_max.count()));
    auto headers = list_of(request.headers);
    std::array<char, CURL_ERROR_SIZE> said{};
    curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, said.data());
    curl_easy_setopt(curl.get(), CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
    auto code = curl_easy_perform(curl.get());
    curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, nullptr);
    // An empty body has no first byte.
    if (code == CURLE_OK && now.streams() && !now.body_began)
      now.keep(reader->begin(now.response));
    if (now.refused)
      return *now.refused;
    if (code == CURLE_ABORTED_BY_CALLBACK && now.stalled)
      code = CURLE_OPERATION_TIMEDOUT;
    if (code == CURLE_ABORTED_BY_CALLBACK)
      return error{errc::cancelled, "interrupted"};
    if (code != CURLE_OK)
      return error{is_passing(code) ? errc::unavailable : errc::io,
                   fmt::format("{}: {}", shown_url(request.url),
                               reason(code, said.data()))};
    now.response.url = request.url;
    return std::move(now.response);
  }

  /// curl's words; it has none of its own for a stall.
  std::string reason(CURLcode code, const char* said) const {
    if (code == CURLE_OPERATION_TIMEDOUT)
      return "no answer, or nothing came for too long";
    return *said ? said : curl_easy_strerror(code);
  }
};

http_session::http_session(const transfer_limits& limits,
                           std::filesystem::path ca_file,
                           cancelled is_cancelled)
    : state_(std::make_unique<state>()) {
  prepare_curl();
  state_->limits = limits;
  state_->ca_file = std::move(ca_file);
  state_->is_cancelled = std::move(is_cancelled);
  state_->curl.reset(curl_easy_init());
}

http_session::http_session(http_session&&) noexcept = default;
http_session::~http_session() = default;

const transfer_limits& http_session::limits() const {
  return state_->limits;
}

namespace {

/// The request that a redirect asks for; none if it is given back as it is.
result<std::optional<http_request>> next_hop(const http_request& from,
                                             const http_response& answer) {
  auto url = resolve_url(from.url, std::string{answer.header("location")});
  if (!url)
    return url.error();
  auto here = parse_url(from.url);
  auto there = parse_url(*url);
  if (!here || !there)
    return error{errc::corrupt,
                 shown_url(from.url) + ": redirects to what is no web address"};
  if (here->scheme == "https" && there->scheme == "http")
    return error{errc::corrupt,
                 shown_url(from.url) + ": redirects from https to http"};
  auto out = from;
  out.url = *url;
  if (!here->same_origin(*there)) {
    if (from.same_origin_only)
      return std::optional<http_request>{};
    std::erase_if(out.headers,
                  [](const auto& header) { return header.secret; });
  }
  return std::optional{std::move(out)};
}

} // namespace

result<http_response> http_session::send(const http_request& request,
                                         body_reader* reader) {
  auto now = request;
  for (unsigned hops = 0;; ++hops) {
    auto answer = state_->once(now, reader);
    if (!answer || !is_redirect(answer->status) || request.redirects_max == 0)
      return answer;
    if (hops == request.redirects_max)
      return error{errc::limit, fmt::format("{}: more than {} redirects",
                                            shown_url(request.url), hops)};
    auto next = next_hop(now, *answer);
    if (!next)
      return next.error();
    if (!*next)
      return answer;
    now = std::move(**next);
  }
}

bool http_session::pause(milliseconds time) const {
  using clock = std::chrono::steady_clock;
  for (auto end = clock::now() + time; clock::now() < end;) {
    if (state_->is_cancelled())
      return false;
    std::this_thread::sleep_for(
        std::min<clock::duration>(end - clock::now(), milliseconds{50}));
  }
  return !state_->is_cancelled();
}

bool is_passing(int status) {
  return status == 408 || status == 429 || status == 500 || status == 502 ||
         status == 503 || status == 504;
}

error status_error(const http_response& answer) {
  return {
      is_passing(answer.status) ? errc::unavailable : errc::io,
      fmt::format("{}: HTTP status {}", shown_url(answer.url), answer.status)};
}

retry_pause::retry_pause(const transfer_limits& limits) : limits_(limits) {
  // nop
}

void retry_pause::reset() {
  failed_ = 0;
}

namespace {

/// A number from 0.5 to 1.
double jitter() {
  static thread_local std::minstd_rand random{std::random_device{}()};
  return std::uniform_real_distribution{0.5, 1.0}(random);
}

/// Of a Retry-After header in seconds; a date counts as none.
milliseconds asked_pause(std::string_view header) {
  std::uint32_t seconds = 0;
  auto end = header.data() + header.size();
  auto [at, code] = std::from_chars(header.data(), end, seconds);
  if (header.empty() || code != std::errc{} || at != end)
    return {};
  return std::chrono::seconds{seconds};
}

} // namespace

result<void> retry_pause::wait(const http_session& session, const error& why,
                               std::string_view retry_after) {
  if (++failed_ >= limits_.tries)
    return why;
  auto asked = asked_pause(retry_after);
  if (asked > limits_.pause_max)
    return error{why.code, fmt::format("{}; it asks to come back in {} s",
                                       why.message, asked.count() / 1000)};
  auto own = limits_.pause * (1u << std::min(failed_ - 1, 10u));
  auto bounded = std::min<milliseconds>(own, limits_.pause_max);
  auto time = std::max(
      asked, std::chrono::duration_cast<milliseconds>(bounded * jitter()));
  if (!session.pause(time))
    return error{errc::cancelled, "interrupted"};
  return {};
}

result<http_response>
send_with_retries(http_session& session,
                  const std::function<result<http_request>()>& make) {
  for (retry_pause pause{session.limits()};;) {
    auto request = make();
    if (!request)
      return request.error();
    auto answer = session.send(*request);
    if (answer && !is_passing(answer->status))
      return answer;
    if (!answer && answer.error().code != errc::unavailable)
      return answer;
    auto why = answer ? status_error(*answer) : answer.error();
    auto header = answer ? answer->header("retry-after") : std::string_view{};
    if (auto again = pause.wait(session, why, header); !again)
      return again.error();
  }
}

} // namespace troupe::download
