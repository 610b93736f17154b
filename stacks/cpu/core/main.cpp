#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include "../seams/scheduler.h"
#include "../seams/threading.h"
#include "api.h"
#include "json.h"

namespace {
std::string g_socket;  // for the signal handler

// Reads a JSON string a line from stdin, prints its token ids as a list.
void tokenize(const Tokenizer& tokenizer) {
  char* line = nullptr;
  size_t capacity = 0;
  for (ssize_t n; (n = getline(&line, &capacity, stdin)) >= 0;) {
    std::puts(json_list(tokenizer.encode(parse_json({line, size_t(n)}).string)).c_str());
  }
  std::free(line);
}

void run(int argc, char** argv) {
  std::string model, cpus = "0", wrong;
  bool only_tokenize = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    std::string* value = flag == "--socket" ? &g_socket : flag == "--model" ? &model : flag == "--cpus" ? &cpus : nullptr;
    if (flag == "--tokenize") only_tokenize = true;
    else if (value && i + 1 < argc) *value = argv[++i];
    else if (wrong.empty()) wrong = flag + ": ";
  }
  const bool complete = !model.empty() && (only_tokenize || !g_socket.empty());
  if (!wrong.empty() || !complete) throw std::runtime_error(wrong + "usage: --model FILE (--socket PATH [--cpus 0,1] | --tokenize)");
  const Gguf file = read_gguf(model.c_str());
  const Config config = read_config(file);
  const Tokenizer tokenizer(file);
  if (only_tokenize) return tokenize(tokenizer);
  threads_start(cpus.c_str());
  Body* body = body_load(file, config);
  Head* head = head_load(file, config);
  Queue& queue = *new Queue;  // never destroyed: the scheduler waits on it to the end
  std::thread([&] { scheduler_run(queue, *body, *head, config); }).detach();
  std::signal(SIGTERM, [](int) { unlink(g_socket.c_str()), _exit(0); });
  const Api api{tokenizer, config, queue, model.substr(model.rfind('/') + 1)};
  serve_http(g_socket, [&](Connection& connection, const HttpRequest& request) { handle_request(api, connection, request); });
}
}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 2;
  }
}
