#include "gguf.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace {
struct Format { int block, bytes; };

Format format_of(Type type) {
  switch (type) {
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
  const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp(float(fraction), -24);
  return bits & 0x8000 ? -size : size;
}

// Reads the file's fields in order and never past its end.
struct Cursor {
  const char* path;
  const uint8_t* base;
  size_t size, at = 0;

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(std::string(path) + ": offset " + std::to_string(at) + ": " + what);
  }
  const uint8_t* take(size_t bytes, const char* what) {
    if (bytes > size - at) {
      fail("expected " + std::to_string(bytes) + " bytes of " + what + ", but the file ends at " + std::to_string(size));
    }
    at += bytes;
    return base + at - bytes;
  }
  template <class T> T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }
  std::string text(const char* what) {
    const auto length = read<uint64_t>(what);
    return {reinterpret_cast<const char*>(take(length, what)), length};
  }
  double number(uint32_t type) {
    switch (type) {
      case 0: case 7: return read<uint8_t>("a value");
      case 1: return read<int8_t>("a value");
      case 2: return read<uint16_t>("a value");
      case 3: return read<int16_t>("a value");
      case 4: return read<uint32_t>("a value");
      case 5: return read<int32_t>("a value");
      case 6: return read<float>("a value");
      case 10: return double(read<uint64_t>("a value"));
      case 11: return double(read<int64_t>("a value"));
      case 12: return read<double>("a value");
      default: fail("expected a value type 0..12, got " + std::to_string(type));
    }
  }
};
}  // namespace

size_t Tensor::row_bytes() const { return size_t(cols / format_of(type).block) * format_of(type).bytes; }

void dequantise_row(const Tensor& t, int row, float* out) {
  const uint8_t* p = t.data + row * t.row_bytes();
  const auto [block, bytes] = format_of(t.type);
  for (int at = 0; at < t.cols; at += block, p += bytes, out += block) {
    if (t.type == Type::F32) { std::memcpy(out, p, 4); continue; }
    const float scale = half_at(p);
    if (t.type == Type::F16) *out = scale;
    for (int i = 0; t.type == Type::Q8_0 && i < 32; ++i) out[i] = scale * int8_t(p[2 + i]);
    const bool shifted = t.type == Type::Q4_1;
    if (!shifted && t.type != Type::Q4_0) continue;
    const uint8_t* nibbles = p + (shifted ? 4 : 2);
    const float least = shifted ? half_at(p + 2) : -8 * scale;
    for (int i = 0; i < 16; ++i) {
      out[i] = scale * (nibbles[i] & 15) + least;
      out[i + 16] = scale * (nibbles[i] >> 4) + least;
    }
  }
}

const Tensor& Gguf::tensor(const std::string& name) const {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw std::runtime_error("the weights file has no tensor '" + name + "'");
  return found->second;
}

double Gguf::number(const std::string& key) const {
  const auto found = numbers.find(key);
  if (found == numbers.end()) throw std::runtime_error("the weights file has no number '" + key + "'");
  return found->second;
}

Gguf read_gguf(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) throw std::runtime_error(std::string(path) + ": " + std::strerror(errno));
  void* map = info.st_size > 0 ? mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  if (map == MAP_FAILED) throw std::runtime_error(std::string(path) + ": offset 0: expected a GGUF file that can be mapped");
  Cursor in{path, static_cast<const uint8_t*>(map), size_t(info.st_size)};
  if (std::memcmp(in.take(4, "magic"), "GGUF", 4) != 0) in.fail("expected the magic GGUF before this offset");
  if (const auto version = in.read<uint32_t>("version"); version != 3) in.fail("expected version 3, got " + std::to_string(version));
  const auto tensor_count = in.read<uint64_t>("the number of tensors"), key_count = in.read<uint64_t>("the number of keys");
  Gguf file;
  for (uint64_t i = 0; i < key_count; ++i) {
    const std::string key = in.text("a key");
    const auto type = in.read<uint32_t>("a value's type");
    if (type == 8) {
      file.strings[key] = in.text("a string");
    } else if (type == 9) {
      const auto element = in.read<uint32_t>("an array's type");
      auto &texts = file.lists[key];
      auto &numbers = file.number_lists[key];
      for (auto left = in.read<uint64_t>("an array's length"); left > 0; --left) {
        if (element == 8) texts.push_back(in.text("a string")); else numbers.push_back(in.number(element));
      }
    } else {
      file.numbers[key] = in.number(type);
    }
  }
  std::vector<std::pair<Tensor*, uint64_t>> offsets;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    const std::string name = in.text("a tensor's name");
    const auto dims = in.read<uint32_t>("a tensor's number of dimensions");
    if (dims < 1 || dims > 2) in.fail("expected 1 or 2 dimensions in '" + name + "', got " + std::to_string(dims));
    const auto cols = in.read<uint64_t>("a dimension"), rows = dims == 2 ? in.read<uint64_t>("a dimension") : 1;
    const Type type{in.read<uint32_t>("a tensor's type")};
    const int block = format_of(type).block;
    if (!block) in.fail("expected F32, F16, Q4_0, Q4_1 or Q8_0 in '" + name + "', got type " + std::to_string(uint32_t(type)));
    const bool fits = rows && cols && rows <= 1 << 24 && cols <= 1 << 24 && cols % block == 0;
    if (!fits) in.fail("expected a shape that its type allows in '" + name + "'");
    Tensor& tensor = file.tensors[name] = {type, int(rows), int(cols), nullptr};
    offsets.push_back({&tensor, in.read<uint64_t>("a tensor's offset")});
  }
  const size_t align = file.numbers.count("general.alignment") ? size_t(file.number("general.alignment")) : 32;
  if (align == 0 || align > 65536) in.fail("expected general.alignment to be 1..65536");
  const size_t data = (in.at + align - 1) / align * align;
  for (const auto& [tensor, offset] : offsets) {
    const size_t bytes = tensor->rows * tensor->row_bytes();
    in.at = std::min(data, in.size);
    if (offset > in.size - in.at || bytes > in.size - in.at - offset) {
      in.fail("expected " + std::to_string(bytes) + " bytes of a tensor " + std::to_string(offset) + " further, but the file ends at " +
              std::to_string(in.size));
    }
    tensor->data = in.base + data + offset;
  }
  return file;
}
