// The least that a stack's serve command must do: listen on a unix socket and answer GET /health. argv: --socket PATH --model FILE --cpus LIST
#include <cstring>
#include <fstream>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char** argv) {
  std::string socket_path, model, cpus;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    (name == "--socket" ? socket_path : name == "--model" ? model : cpus) = argv[i + 1];
  }
  std::string first;
  std::getline(std::ifstream(model) >> std::ws, first);
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  std::strncpy(at.sun_path, socket_path.c_str(), sizeof at.sun_path - 1);
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || listen(listener, 8) != 0) return 1;
  for (;;) {
    const int peer = accept(listener, nullptr, nullptr);
    char request[4096];
    if (read(peer, request, sizeof request) <= 0) continue;
    const std::string body = "{\"model\":\"" + first + "\",\"cpus\":\"" + cpus + "\"}";
    const std::string head = std::strncmp(request, "GET /health ", 12) == 0 ? "HTTP/1.1 200 OK" : "HTTP/1.1 404 Not Found";
    const std::string answer = head + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
    if (write(peer, answer.data(), answer.size()) < 0) return 1;
    close(peer);
  }
}
