#include "http.h"
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <thread>

namespace {
constexpr size_t kMaxHead = 64 << 10, kMaxBody = 64 << 20;  // bytes; a body holds at most a few hundred thousand ids to score
constexpr int kMaxConnections = 256;
}  // namespace

Connection::Connection(int fd) : fd_(fd) {
  if (pipe(wake_) != 0) wake_[0] = wake_[1] = -1, shutdown(fd_, SHUT_RDWR);
  const timeval patience{30, 0};  // a client that takes nothing for so long is gone
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

Connection::~Connection() { for (const int fd : {fd_, wake_[0], wake_[1]}) if (fd >= 0) close(fd); }

bool Connection::push(bool block) {
  while (!out_.empty()) {
    const ssize_t sent = send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL | (block ? 0 : MSG_DONTWAIT));
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return !block && (errno == EAGAIN || errno == EWOULDBLOCK);
    out_.erase(0, sent);
  }
  return true;
}

bool Connection::refuse(int status, const std::string& why) {
  respond(status, "{\"error\":{\"message\":\"" + why + "\",\"type\":\"invalid_request_error\",\"param\":null}}");
  return false;
}

bool Connection::read(HttpRequest& out) {
  const auto more = [&] {
    char buffer[65536];
    const ssize_t got = recv(fd_, buffer, sizeof buffer, 0);
    if (got > 0) in_.append(buffer, got);
    return got > 0 || (got < 0 && errno == EINTR);
  };
  size_t end, length = 0;
  while ((end = in_.find("\r\n\r\n")) == in_.npos) {
    if (in_.size() > kMaxHead) return refuse(431, "The request's head is too long");
    if (!more()) return false;
  }
  const std::string head = in_.substr(0, end + 2);
  const size_t line = head.find("\r\n"), space = head.find(' '), version = head.find(" HTTP/1.");
  if (space > line || version > line || version <= space) return refuse(400, "The request line is not HTTP/1.1");
  out = {head.substr(0, space), head.substr(space + 1, version - space - 1), "", head[version + 8] != '0'};
  for (size_t at = line + 2, next; at < head.size(); at = next + 2) {
    next = head.find("\r\n", at);
    const size_t colon = head.find(':', at), start = head.find_first_not_of(" \t", colon + 1);
    if (colon >= next) return refuse(400, "A header line has no colon");
    const std::string name = head.substr(at, colon - at), value = start < next ? head.substr(start, next - start) : "";
    const auto is = [](const std::string& text, const char* word) { return strcasecmp(text.c_str(), word) == 0; };
    if (is(name, "transfer-encoding")) return refuse(411, "Send Content-Length; Transfer-Encoding is not served");
    if (is(name, "connection")) out.keep_alive = !is(value, "close") && (out.keep_alive || is(value, "keep-alive"));
    if (is(name, "content-length")) {
      const bool digits = value.find_first_not_of("0123456789 ") == value.npos && value.size() <= 18 && value > " ";
      if (!digits) return refuse(400, "Content-Length is no number");
      if ((length = std::stoull(value)) > kMaxBody) return refuse(413, "The body is too long");
    }
    if (is(name, "expect")) out_ += "HTTP/1.1 100 Continue\r\n\r\n", push(true);
  }
  while (in_.size() < end + 4 + length) if (!more()) return false;
  out.body = in_.substr(end + 4, length);
  in_.erase(0, end + 4 + length);
  return true;
}

void Connection::respond(int status, std::string_view json) {
  out_ += "HTTP/1.1 " + std::to_string(status) + (status < 400 ? " OK" : " Refused") +
          "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(json.size()) + "\r\n\r\n";
  out_ += json;
  push(true);
}

void Connection::start_events() {
  out_ += "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
  push(false);
}

bool Connection::event(std::string_view data) {
  char size[24];
  std::snprintf(size, sizeof size, "%zx\r\n", data.empty() ? 0 : data.size() + 8);
  ((out_ += size) += data.empty() ? "" : "data: ") += data;
  out_ += data.empty() ? "\r\n" : "\n\n\r\n";
  return push(false);
}

void Connection::wait(const std::function<void()>& gone) {
  pollfd fds[2] = {{wake_[0], POLLIN, 0}, {fd_, 0, 0}};
  while (poll(fds, 2, -1) < 0 || !fds[0].revents) {
    if (fds[1].revents & (POLLHUP | POLLERR)) fds[1].fd = -1, gone();
  }
  char byte;
  if (::read(wake_[0], &byte, 1) == 1) push(true);
}

void Connection::finish() { if (write(wake_[1], "", 1) != 1) std::abort(); }

void serve_http(const std::string& path, const std::function<void(Connection&, const HttpRequest&)>& handle) {
  sockaddr_un address{AF_UNIX, {}};
  if (path.size() >= sizeof address.sun_path) throw std::runtime_error("--socket: the path is longer than a unix socket's may be");
  std::memcpy(address.sun_path, path.data(), path.size());
  unlink(path.c_str());
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener, kMaxConnections) != 0) {
    throw std::runtime_error("--socket " + path + ": " + std::strerror(errno));
  }
  static std::atomic<int> open{0};
  for (;;) {
    const int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) { usleep(10000); continue; }  // out of descriptors: some will be given back
    const bool full = ++open > kMaxConnections;
    try {
      std::thread([fd, full, &handle] {
        Connection connection(fd);
        for (HttpRequest request; connection.read(request);) {
          if (full) connection.respond(503, "{\"error\":{\"message\":\"256 connections are open\",\"type\":\"overloaded\",\"param\":null}}");
          else handle(connection, request);
          if (full || !request.keep_alive) break;
        }
        --open;
      }).detach();
    } catch (const std::system_error&) {  // the sandbox allows no more threads
      --open, close(fd);
    }
  }
}
