// Usage: reference MODEL.gguf [--threads N] [--kernel default|avx2|avx512]
// Serves score requests on stdin and stdout (protocol.hpp) until stdin ends. Exit 2: bad arguments or model; 3: a broken frame.
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "protocol.hpp"

namespace {

int serve(const std::string& path, unsigned threads, const std::string& wanted) {
  const ref::Gguf file(path);
  const ref::Model model = ref::loadModel(file);
  const ref::Kernel kernel = ref::chooseKernel(wanted);
  if (kernel.tile == nullptr) throw std::runtime_error("this CPU does not run the kernel " + wanted);
  ref::Workers workers(threads);
  std::ostringstream hello;
  hello << "{\"protocol\":1,\"top\":" << std::min(ref::TOP, model.vocab) << ",\"vocab\":" << model.vocab << ",\"context\":" << model.context
        << ",\"layers\":" << model.layers.size() << ",\"threads\":" << threads << ",\"kernel\":\"" << kernel.name << "\"}";
  ref::writeText(0, 0, hello.str());
  for (;;) {
    if (ref::readU32() != ref::REQUEST) {
      std::cerr << "stdin holds no request frame\n";
      return 3;
    }
    const uint32_t id = ref::readU32();
    std::vector<ref::Sequence> sequences;
    try {
      sequences = ref::readSequences();
    } catch (const std::runtime_error& e) {
      ref::writeText(id, 1, e.what());
      return 3;
    }
    const std::string problem = ref::problemOf(model, sequences);
    if (problem.empty()) ref::writeAnswer(id, 0, ref::payloadOf(ref::score(model, kernel, workers, sequences)));
    else ref::writeText(id, 1, problem);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string path, kernel;
  unsigned threads = 2;
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i];
    if (arg == "--threads" && i + 1 < argc) threads = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
    else if (arg == "--kernel" && i + 1 < argc) kernel = argv[++i];
    else path = arg;
  }
  if (path.empty() || threads < 1 || threads > 256) {
    std::cerr << "usage: reference MODEL.gguf [--threads 1..256] [--kernel default|avx2|avx512]\n";
    return 2;
  }
  try {
    return serve(path, threads, kernel);
  } catch (const ref::EndOfInput&) {
    return 0;
  } catch (const std::exception& e) {
    std::cerr << e.what() << '\n';
    return 2;
  }
}
