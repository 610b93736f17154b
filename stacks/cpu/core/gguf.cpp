#include "gguf.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace {
struct Format { int block, bytes; };
Format format_of(Type t) {
  switch (t) {
    case Type::F32: return {1, 4};
    case Type::F16: return {1, 2};
    case Type::Q4_0: return {32, 18};
    case Type::Q4_1: return {32, 20};
    case Type::Q8_0: return {32, 34};
  }
  return {0, 0};
}

float half_at(const uint8_t* p) {
  const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float finite = std::ldexp(float(fraction + (exponent ? 1024 : 0)), std::max(exponent, 1) - 25);
  return (bits & 0x8000 ? -1 : 1) * (exponent < 31 ? finite : fraction ? NAN : INFINITY);
}

// Reads the file's fields in order and never past its end.
struct Cursor {
  const char* path;
  const uint8_t* base;
  size_t size, at = 0;

  [[noreturn]] void fail(const std::string& expected) const {
    throw std::runtime_error(std::string(path) + ": offset " + std::to_string(at) + ": expected " + expected);
  }
  const uint8_t* take(uint64_t bytes, const char* what) {
    if (bytes > size - at) fail(std::to_string(bytes) + " bytes of " + what + ", but the file ends at " + std::to_string(size));
    at += bytes;
    return base + at - bytes;
  }
  template <class T> T read() {
    T value;
    std::memcpy(&value, take(sizeof value, "a value"), sizeof value);
    return value;
  }
  std::string text(const char* what) {
    const auto length = read<uint64_t>();
    return {reinterpret_cast<const char*>(take(length, what)), length};
  }
  double number(uint32_t type) {
    switch (type) {
      case 0: case 7: return read<uint8_t>();
      case 1: return read<int8_t>();
      case 2: return read<uint16_t>();
      case 3: return read<int16_t>();
      case 4: return read<uint32_t>();
      case 5: return read<int32_t>();
      case 6: return read<float>();
      case 10: return double(read<uint64_t>());
      case 11: return double(read<int64_t>());
      case 12: return read<double>();
      default: fail("a value's type, 0..12, got " + std::to_string(type));
    }
  }
  void key_and_value(Gguf& file) {
    const std::string key = text("a key");
    const auto type = read<uint32_t>(), element = type == 9 ? read<uint32_t>() : 0;
    if (type == 8) file.strings[key] = text("a string");
    else if (type != 9) file.numbers[key] = number(type);
    for (auto left = type == 9 ? read<uint64_t>() : 0; left > 0; --left) {
      if (element == 8) file.lists[key].push_back(text("a string")); else file.number_lists[key].push_back(number(element));
    }
  }
  uint64_t tensor(Gguf& file, std::vector<Tensor*>& order) {  // all but its data, of which it answers the offset
    const std::string name = text("a tensor's name");
    const auto dims = read<uint32_t>();
    if (dims < 1 || dims > 2) fail("1 or 2 dimensions in '" + name + "', got " + std::to_string(dims));
    const auto cols = read<uint64_t>(), rows = dims == 2 ? read<uint64_t>() : 1;
    const Type type{read<uint32_t>()};
    const int block = format_of(type).block;
    if (!block) fail("F32, F16, Q4_0, Q4_1 or Q8_0 in '" + name + "', got type " + std::to_string(uint32_t(type)));
    if (!rows || !cols || rows > 1 << 24 || cols > 1 << 24 || cols % block) fail("a shape that its type allows in '" + name + "'");
    order.push_back(&(file.tensors[name] = {type, int(rows), int(cols), nullptr}));
    return read<uint64_t>();
  }
};
}  // namespace

size_t Tensor::row_bytes() const { return size_t(cols / format_of(type).block) * format_of(type).bytes; }

void dequantise_row(const Tensor& t, int row, float* out) {
  const auto [block, bytes] = format_of(t.type);
  const uint8_t* p = t.data + row * t.row_bytes();
  if (t.type == Type::F32) { std::memcpy(out, p, t.row_bytes()); return; }
  for (int at = 0; at < t.cols; at += block, p += bytes, out += block) {
    const float scale = half_at(p);
    if (t.type == Type::F16) *out = scale;
    else if (t.type == Type::Q8_0) for (int i = 0; i < 32; ++i) out[i] = scale * int8_t(p[2 + i]);
    else {
      const uint8_t* nibbles = p + bytes - 16;
      const float least = t.type == Type::Q4_1 ? half_at(p + 2) : -8 * scale;
      for (int i = 0; i < 16; ++i) out[i] = scale * (nibbles[i] & 15) + least, out[i + 16] = scale * (nibbles[i] >> 4) + least;
    }
  }
}

const Tensor& Gguf::tensor(const std::string& name) const {
  const auto found = tensors.find(name);
  return found != tensors.end() ? found->second : throw std::runtime_error("the weights file has no tensor '" + name + "'");
}

double Gguf::number(const std::string& key) const {
  const auto found = numbers.find(key);
  return found != numbers.end() ? found->second : throw std::runtime_error("the weights file has no number '" + key + "'");
}

Gguf read_gguf(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) throw std::runtime_error(std::string(path) + ": " + std::strerror(errno));
  void* map = mmap(nullptr, std::max<size_t>(info.st_size, 1), PROT_READ, MAP_PRIVATE, fd, 0);
  if (map == MAP_FAILED) throw std::runtime_error(std::string(path) + ": offset 0: expected a file that can be mapped");
  Cursor in{path, static_cast<const uint8_t*>(map), size_t(info.st_size)};
  if (std::memcmp(in.take(4, "the magic GGUF"), "GGUF", 4) != 0) in.fail("the magic GGUF before it");
  if (const auto version = in.read<uint32_t>(); version != 3) in.fail("version 3, got " + std::to_string(version));
  const auto tensors = in.read<uint64_t>(), keys = in.read<uint64_t>();
  Gguf file;
  for (uint64_t i = 0; i < keys; ++i) in.key_and_value(file);
  std::vector<Tensor*> order;
  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < tensors; ++i) offsets.push_back(in.tensor(file, order));
  const double align = file.numbers.count("general.alignment") ? file.number("general.alignment") : 32;
  if (align < 1 || align > 65536) in.fail("general.alignment of 1..65536");
  const size_t data = (in.at + size_t(align) - 1) / size_t(align) * size_t(align);
  for (size_t i = 0; i < order.size(); ++i) {
    in.at = std::min(in.size, data + std::min<uint64_t>(offsets[i], in.size));
    order[i]->data = in.take(order[i]->rows * order[i]->row_bytes(), "a tensor");
  }
  return file;
}
