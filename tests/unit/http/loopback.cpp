#include "tests/unit/http/loopback.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

namespace troupe::http::test {

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition())
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

test_server::test_server(limits bounds, handler on_request,
                         server_options options)
    : work_(io_.get_executor()) {
  options.bounds = bounds;
  auto serve = [this, on_request](request r, std::shared_ptr<reply> answer) {
    {
      std::lock_guard guard{mutex_};
      seen_.push_back(r);
    }
    if (on_request)
      return on_request(std::move(r), std::move(answer));
    answer->respond(200, {{"Content-Type", "text/plain"}},
                    r.method + " " + r.path + " " + r.body);
  };
  server_ = server::start(io_, options, serve).value();
  port_ = server_->port();
  for (int i = 0; i < 2; ++i)
    threads_.emplace_back([this] { io_.run(); });
}

test_server::~test_server() {
  if (server_) {
    server_->close();
    eventually([this] { return server_->connections() == 0; });
    server_.reset();
  }
  work_.reset();
  for (auto& t : threads_)
    t.join();
}

std::vector<request> test_server::seen() const {
  std::lock_guard guard{mutex_};
  return seen_;
}

handler reply_box::as_handler() {
  return [this](request, std::shared_ptr<reply> r) {
    std::lock_guard guard{mutex_};
    replies_.push_back(std::move(r));
  };
}

std::shared_ptr<reply> reply_box::next() {
  std::shared_ptr<reply> r;
  eventually([&] {
    std::lock_guard guard{mutex_};
    if (replies_.empty())
      return false;
    r = std::move(replies_.front());
    replies_.pop_front();
    return true;
  });
  if (!r)
    throw std::runtime_error("no request came");
  return r;
}

std::size_t reply_box::size() {
  std::lock_guard guard{mutex_};
  return replies_.size();
}

raw_client::raw_client(std::uint16_t port, int receive_buffer_bytes) {
  fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
  timeval patience{10, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (receive_buffer_bytes > 0)
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
                 sizeof receive_buffer_bytes);
  int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (port != 0)
    connect(port);
}

raw_client::~raw_client() {
  close();
}

void raw_client::connect(std::uint16_t port) {
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&where), sizeof where) != 0)
    throw std::runtime_error("cannot connect");
}

bool raw_client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    auto n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

void raw_client::send_byte_by_byte(std::string_view bytes) {
  for (char c : bytes)
    send({&c, 1});
}

void raw_client::end_sending() {
  ::shutdown(fd_, SHUT_WR);
}

void raw_client::close() {
  if (fd_ >= 0)
    ::close(fd_);
  fd_ = -1;
}

void raw_client::reset() {
  linger hard{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  close();
}

bool raw_client::receive() {
  char bytes[16384];
  auto n = ::recv(fd_, bytes, sizeof bytes, 0);
  failed_ = failed_ || n < 0;
  if (n <= 0)
    return false;
  buffer_.append(bytes, static_cast<std::size_t>(n));
  return true;
}

std::string raw_client::take_line() {
  auto end = buffer_.find("\r\n");
  while (end == buffer_.npos) {
    if (!receive())
      return {};
    end = buffer_.find("\r\n");
  }
  auto line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return line;
}

bool raw_client::take_chunks(std::string& body) {
  for (;;) {
    auto head = take_line();
    if (head.empty())
      return false;
    auto size = std::stoul(head, nullptr, 16);
    while (buffer_.size() < size + 2)
      if (!receive())
        return false;
    body.append(buffer_, 0, size);
    buffer_.erase(0, size + 2);
    if (size == 0)
      return true;
  }
}

answer raw_client::read_answer(bool has_body) {
  answer a;
  auto status_line = take_line();
  if (status_line.size() < 12 || status_line.substr(0, 9) != "HTTP/1.1 ")
    return a;
  a.status = std::stoi(status_line.substr(9, 3));
  for (auto line = take_line(); !line.empty(); line = take_line()) {
    auto colon = line.find(": ");
    auto name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    a.headers[name] = line.substr(colon + 2);
  }
  if (!has_body || a.status < 200 || a.status == 204 || a.status == 304) {
    a.whole = true;
  } else if (a.headers.count("content-length")) {
    auto size = std::stoul(a.headers["content-length"]);
    a.body = read_at_least(size);
    a.whole = a.body.size() >= size;
    buffer_ = a.body.substr(std::min(size, a.body.size()));
    a.body.resize(std::min(size, a.body.size()));
  } else if (a.headers.count("transfer-encoding")) {
    a.whole = take_chunks(a.body);
  } else {
    a.body = read_to_end();
  }
  return a;
}

std::string raw_client::read_to_end() {
  while (receive()) {
  }
  return std::exchange(buffer_, {});
}

std::string raw_client::read_at_least(std::size_t n) {
  while (buffer_.size() < n && receive()) {
  }
  return std::exchange(buffer_, {});
}

bool raw_client::at_end() {
  return buffer_.empty() && !receive() && !failed_;
}

std::string get(std::string_view path, std::string_view more_fields) {
  return std::string("GET ")
      .append(path)
      .append(" HTTP/1.1\r\nHost: h\r\n")
      .append(more_fields)
      .append("\r\n");
}

std::string post(std::string_view path, std::string_view body,
                 std::string_view more_fields) {
  return std::string("POST ")
      .append(path)
      .append(" HTTP/1.1\r\nHost: h\r\n")
      .append(more_fields)
      .append("Content-Length: ")
      .append(std::to_string(body.size()))
      .append("\r\n\r\n")
      .append(body);
}

} // namespace troupe::http::test
