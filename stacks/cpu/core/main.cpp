#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <unistd.h>
#include "../seams/scheduler.h"
#include "../seams/threading.h"
#include "api.h"
#include "json.h"

namespace {
char g_socket[4096];  // for the signal handler

// Reads one JSON string a line from stdin, prints its token ids as a list.
int tokenize(const Tokenizer& tokenizer) {
  char* line = nullptr;
  size_t capacity = 0;
  for (ssize_t n; (n = getline(&line, &capacity, stdin)) >= 0;) {
    std::string out;
    put_list(out, tokenizer.encode(parse_json({line, size_t(n)}).string));
    std::puts(out.c_str());
  }
  return 0;
}

int run(int argc, char** argv) {
  std::string socket, model, cpus = "0";
  bool only_tokenize = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    std::string* value = flag == "--socket" ? &socket : flag == "--model" ? &model : flag == "--cpus" ? &cpus : nullptr;
    if (flag == "--tokenize") only_tokenize = true;
    else if (value && i + 1 < argc) *value = argv[++i];
    else throw std::runtime_error(flag + ": usage: --model FILE (--socket PATH [--cpus 0,1] | --tokenize)");
  }
  if (model.empty() || (socket.empty() && !only_tokenize)) throw std::runtime_error("usage: --model FILE (--socket PATH [--cpus 0,1] | --tokenize)");
  const Gguf file = read_gguf(model.c_str());
  const Config config = read_config(file);
  const Tokenizer tokenizer(file);
  if (only_tokenize) return tokenize(tokenizer);
  threads_start(cpus.c_str());
  Body* body = body_load(file, config);
  Head* head = head_load(file, config);
  Queue& queue = *new Queue;  // never destroyed: the scheduler waits on it to the end
  std::thread([&] { scheduler_run(queue, *body, *head, config); }).detach();
  std::snprintf(g_socket, sizeof g_socket, "%s", socket.c_str());
  std::signal(SIGTERM, [](int) { unlink(g_socket), _exit(0); });
  const size_t slash = model.rfind('/');
  const Api api{tokenizer, config, queue, model.substr(slash == model.npos ? 0 : slash + 1)};
  serve_http(socket, [&](Connection& connection, const HttpRequest& request) { handle_request(api, connection, request); });
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 2;
  }
}
