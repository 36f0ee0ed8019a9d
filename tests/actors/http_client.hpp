#pragma once

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

/// A client that sends one request and looks at every byte of the answer.
namespace troupe::test {

class http_client {
public:
  /// `kept_bytes`: that the system keeps for it while it does not read; 0 = as
  /// many as the system likes.
  explicit http_client(std::uint16_t port, int kept_bytes = 0)
      : connection_(std::make_unique<connection>()) {
    auto& socket = connection_->socket;
    socket.open(boost::asio::ip::tcp::v4());
    if (kept_bytes > 0)
      socket.set_option(
          boost::asio::socket_base::receive_buffer_size{kept_bytes});
    socket.connect({boost::asio::ip::address_v4::loopback(), port});
  }

  void send(std::string_view method, std::string_view target,
            std::string_view body = {}, std::string_view headers = {}) {
    std::string text;
    text.append(method).append(" ").append(target).append(" HTTP/1.1\r\n");
    if (headers.find("Host:") == std::string_view::npos)
      text.append("Host: localhost\r\n");
    text.append("Connection: close\r\n").append(headers);
    if (method == "POST") {
      if (headers.find("Content-Type:") == std::string_view::npos)
        text.append("Content-Type: application/json\r\n");
      text.append("Content-Length: " + std::to_string(body.size()) + "\r\n");
    }
    text.append("\r\n").append(body);
    boost::asio::write(connection_->socket, boost::asio::buffer(text));
  }

  /// Bytes of one's own.
  void send_text(std::string_view text) {
    boost::asio::write(connection_->socket, boost::asio::buffer(text));
  }

  /// Reads until the answer holds `text`; false if it ended before.
  bool wait_for(std::string_view text) {
    while (raw_.find(text) == std::string::npos)
      if (!read_some())
        return false;
    return true;
  }

  void read_all() {
    while (read_some())
      ;
  }

  void end_sending() {
    connection_->socket.shutdown(boost::asio::ip::tcp::socket::shutdown_send);
  }

  void close() {
    connection_->socket.close();
  }

  /// All bytes so far.
  const std::string& raw() const {
    return raw_;
  }

  int status() const {
    return raw_.size() < 12 ? 0 : std::stoi(raw_.substr(9, 3));
  }

  /// A header by its name in lower case.
  std::string header(std::string_view name) const {
    std::size_t at = raw_.find("\r\n") + 2;
    while (at < raw_.size() && raw_.compare(at, 2, "\r\n") != 0) {
      auto end = raw_.find("\r\n", at);
      auto colon = raw_.find(':', at);
      auto key = raw_.substr(at, colon - at);
      for (auto& c : key)
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      if (key == name)
        return raw_.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    return {};
  }

  /// The body, without the chunks' frames.
  std::string body() const {
    auto at = raw_.find("\r\n\r\n");
    if (at == std::string::npos)
      return {};
    auto rest = raw_.substr(at + 4);
    if (header("transfer-encoding") != "chunked")
      return rest;
    std::string out;
    while (!rest.empty()) {
      auto end = rest.find("\r\n");
      if (end == std::string::npos)
        break;
      auto size = std::stoul(rest.substr(0, end), nullptr, 16);
      out += rest.substr(end + 2, size);
      rest.erase(0, std::min(rest.size(), end + 2 + size + 2));
    }
    return out;
  }

  /// The last chunk came: the stream is whole.
  bool whole() const {
    return raw_.ends_with("\r\n0\r\n\r\n");
  }

private:
  bool read_some() {
    char buffer[4096];
    boost::system::error_code wrong;
    auto size =
        connection_->socket.read_some(boost::asio::buffer(buffer), wrong);
    raw_.append(buffer, size);
    return !wrong;
  }

  struct connection {
    boost::asio::io_context io;
    boost::asio::ip::tcp::socket socket{io};
  };

  std::unique_ptr<connection> connection_;
  std::string raw_;
};

} // namespace troupe::test
