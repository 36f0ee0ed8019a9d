// What the HTTP layer costs, beside the floor: a bare epoll loop that reads,
// writes a fixed answer and parses nothing. One server thread and one client
// thread on loopback, the two servers in turn; compare the ratios, not the
// figures of different runs.
//
//   http_bench [seconds per turn] [turns] [connections]

#include "router/http/server.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <functional>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace troupe::http;
using steady = std::chrono::steady_clock;

const std::string request_bytes =
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n"
    "Content-Type: application/json\r\nAccept: */*\r\n"
    "User-Agent: http_bench\r\nContent-Length: 64\r\n\r\n" +
    std::string(64, 'x');

const std::string answer_body(128, 'y');

struct settings {
  double seconds = 1;
  int turns = 7;
  int connections = 64;
};

int connect_to(std::uint16_t port) {
  int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&where), sizeof where) != 0)
    std::abort();
  int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

void watch(int epoll, int fd) {
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.fd = fd;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

/// Calls `on_readable` with descriptors until it says false.
void loop(int epoll, const std::function<bool(int)>& on_readable) {
  epoll_event events[256];
  for (;;) {
    int n = ::epoll_wait(epoll, events, 256, 100);
    for (int i = 0; i < n; ++i)
      if (!on_readable(events[i].data.fd))
        return;
    if (n == 0 && !on_readable(-1))
      return;
  }
}

/// Requests per second, each connection with one request at a time.
double drive_requests(std::uint16_t port, const settings& s) {
  int epoll = ::epoll_create1(0);
  std::vector<int> fds;
  for (int i = 0; i < s.connections; ++i) {
    fds.push_back(connect_to(port));
    watch(epoll, fds.back());
    ::send(fds.back(), request_bytes.data(), request_bytes.size(), 0);
  }
  std::size_t answers = 0;
  auto begin = steady::now();
  auto end = begin + std::chrono::duration<double>(s.seconds);
  loop(epoll, [&](int fd) {
    char bytes[4096];
    if (fd >= 0 && ::recv(fd, bytes, sizeof bytes, 0) > 0) {
      ++answers;
      ::send(fd, request_bytes.data(), request_bytes.size(), 0);
    }
    return steady::now() < end;
  });
  auto took = std::chrono::duration<double>(steady::now() - begin).count();
  for (int fd : fds)
    ::close(fd);
  ::close(epoll);
  return static_cast<double>(answers) / took;
}

/// The floor: reads what is there and answers it unread.
class bare_server {
public:
  bare_server()
      : epoll_(::epoll_create1(0)),
        listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof where;
    ::bind(listener_, reinterpret_cast<sockaddr*>(&where), size);
    ::listen(listener_, 1024);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&where), &size);
    port = ntohs(where.sin_port);
    watch(epoll_, listener_);
    thread_ = std::thread([this] { run(); });
  }

  ~bare_server() {
    stop_ = true;
    thread_.join();
    ::close(listener_);
    ::close(epoll_);
  }

  std::uint16_t port = 0;

private:
  void run() {
    const std::string answer = "HTTP/1.1 200 OK\r\n"
                               "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                               "Content-Type: application/json\r\n"
                               "Content-Length: 128\r\n\r\n" +
                               answer_body;
    loop(epoll_, [&](int fd) {
      char bytes[65536];
      if (fd == listener_) {
        watch(epoll_, ::accept(listener_, nullptr, nullptr));
      } else if (fd >= 0) {
        if (::recv(fd, bytes, sizeof bytes, 0) > 0)
          ::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
        else
          ::close(fd);
      }
      return !stop_;
    });
  }

  int epoll_;
  int listener_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// Ours, on one thread.
class our_server {
public:
  explicit our_server(handler on_request)
      : server_(server::start(io_, {}, std::move(on_request)).value()),
        port(server_->port()), thread_([this] { io_.run(); }) {
  }

  ~our_server() {
    server_->close();
    work_.reset();
    thread_.join();
  }

private:
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type>
      work_{io_.get_executor()};
  std::unique_ptr<server> server_;

public:
  std::uint16_t port = 0;

private:
  std::thread thread_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void bench_requests(const settings& s) {
  bare_server bare;
  our_server ours([](request, std::shared_ptr<reply> r) {
    r->respond(200, {{"Content-Type", "application/json"}}, answer_body);
  });
  std::vector<double> floor_rates, our_rates, ratios;
  for (int i = 0; i < s.turns; ++i) {
    floor_rates.push_back(drive_requests(bare.port, s));
    our_rates.push_back(drive_requests(ours.port, s));
    ratios.push_back(our_rates.back() / floor_rates.back());
  }
  std::printf("requests/s  bare epoll %.0f  ours %.0f  median ratio %.2f\n",
              median(floor_rates), median(our_rates), median(ratios));
}

/// Tokens per second over all connections when each gets one token per step and
/// a step begins when the last has arrived everywhere.
void bench_streams(const settings& s) {
  const std::string token = "data: " + std::string(200, 'z') + "\n\n";
  const std::size_t chunk_bytes = token.size() + 6; // "d0", two line ends
  std::mutex mutex;
  std::vector<std::shared_ptr<reply>> streams;
  our_server ours([&](request, std::shared_ptr<reply> r) {
    std::lock_guard guard{mutex};
    streams.push_back(std::move(r));
  });
  int epoll = ::epoll_create1(0);
  std::vector<int> fds;
  for (int i = 0; i < s.connections; ++i) {
    fds.push_back(connect_to(ours.port));
    ::send(fds.back(), request_bytes.data(), request_bytes.size(), 0);
  }
  for (auto ready = 0u; ready < fds.size(); std::this_thread::yield()) {
    std::lock_guard guard{mutex};
    ready = streams.size();
  }
  for (auto& r : streams)
    r->start_stream(200, {{"Content-Type", "text/event-stream"}});
  char bytes[65536];
  for (int fd : fds) { // the heads
    if (::recv(fd, bytes, sizeof bytes, 0) <= 0)
      std::abort();
    watch(epoll, fd);
  }
  std::size_t steps = 0;
  std::size_t received = 0;
  auto begin = steady::now();
  auto end = begin + std::chrono::duration<double>(s.seconds);
  auto step = [&] {
    ++steps;
    for (auto& r : streams)
      r->write(token);
  };
  step();
  loop(epoll, [&](int fd) {
    if (fd >= 0)
      received += std::max<ssize_t>(0, ::recv(fd, bytes, sizeof bytes, 0));
    if (received < steps * streams.size() * chunk_bytes)
      return true;
    if (steady::now() > end)
      return false;
    step();
    return true;
  });
  auto took = std::chrono::duration<double>(steady::now() - begin).count();
  std::printf("streams     tokens/s %.0f, one write each, %zu streams\n",
              static_cast<double>(steps * streams.size()) / took,
              streams.size());
  for (int fd : fds)
    ::close(fd);
  ::close(epoll);
}

/// Resident bytes per open stream.
void bench_memory() {
  auto resident_kb = [] {
    long pages = 0;
    if (auto* f = std::fopen("/proc/self/statm", "r")) {
      if (std::fscanf(f, "%*d %ld", &pages) != 1)
        pages = 0;
      std::fclose(f);
    }
    return pages * (::sysconf(_SC_PAGESIZE) / 1024);
  };
  constexpr int streams = 5000;
  std::vector<std::shared_ptr<reply>> open;
  std::atomic<int> opened{0};
  our_server ours([&](request, std::shared_ptr<reply> r) {
    r->start_stream(200, {{"Content-Type", "text/event-stream"}});
    r->write("data: a token\n\n");
    open.push_back(std::move(r));
    ++opened;
  });
  auto before = resident_kb();
  std::vector<int> fds;
  for (int i = 0; i < streams; ++i) {
    fds.push_back(connect_to(ours.port));
    ::send(fds.back(), request_bytes.data(), request_bytes.size(), 0);
  }
  while (opened < streams)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::printf("memory      %.2f KB per open stream (%d streams)\n",
              static_cast<double>(resident_kb() - before) / streams, streams);
  for (int fd : fds)
    ::close(fd);
}

} // namespace

int main(int argc, char** argv) {
  settings s;
  if (argc > 1)
    s.seconds = std::atof(argv[1]);
  if (argc > 2)
    s.turns = std::max(1, std::atoi(argv[2]));
  if (argc > 3)
    s.connections = std::max(1, std::atoi(argv[3]));
  bench_requests(s);
  bench_streams(s);
  bench_memory();
}
