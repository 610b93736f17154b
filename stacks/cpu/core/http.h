// HTTP/1.1 with keep-alive on a unix socket, one thread a connection.
#pragma once
#include <functional>
#include <string>
#include <string_view>

struct HttpRequest { std::string method, path, body; bool keep_alive = true; };

class Connection {
 public:
  explicit Connection(int fd);
  ~Connection();
  bool read(HttpRequest& out);  // false: the client is gone, or sent what is not HTTP (answered with a 4xx)
  void respond(int status, std::string_view json);
  void start_events();  // the head of an answer that consists of server-sent events: the client learns that its request stands
  // Sends one more event ("" ends the answer) from any thread, and never blocks: what the socket does not take now goes out with a later
  // event or with wait(). False: the client is gone.
  bool event(std::string_view data);
  void wait(const std::function<void()>& gone);  // until finish(); calls gone, once, when the client closes before that
  void finish();                                 // from any thread

 private:
  bool push(bool block);
  bool refuse(int status, const std::string& why);
  int fd_, wake_[2];
  std::string in_, out_;
};

// Accepts for ever, at most 256 connections at once; throws std::runtime_error when it can't listen at path.
void serve_http(const std::string& path, const std::function<void(Connection&, const HttpRequest&)>& handle);
