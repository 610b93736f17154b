// Reads a GGUF v2/v3 file by mmap: scalar metadata and the tensor table. Arrays of metadata are skipped (the reference knows no text).
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace ref {

struct Tensor {
  std::vector<uint64_t> shape;  // fastest dimension first, as in the file
  uint32_t type = 0;            // ggml type number
  const uint8_t* data = nullptr;
  uint64_t room = 0;  // bytes from data to the end of the file
};

class Gguf {
 public:
  explicit Gguf(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY);
    if (fd < 0) throw std::runtime_error("cannot open " + path);
    struct stat st{};
    if (fstat(fd, &st) != 0 || st.st_size < 24) throw std::runtime_error(path + " is not a GGUF file");
    size_ = static_cast<uint64_t>(st.st_size);
    void* p = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (p == MAP_FAILED) throw std::runtime_error("cannot map " + path);
    base_ = static_cast<const uint8_t*>(p);
    parse(path);
  }
  Gguf(const Gguf&) = delete;
  Gguf& operator=(const Gguf&) = delete;

  double number(const std::string& key) const {
    const auto it = numbers_.find(key);
    if (it == numbers_.end()) throw std::runtime_error("GGUF has no " + key);
    return it->second;
  }
  double number(const std::string& key, double otherwise) const {
    const auto it = numbers_.find(key);
    return it == numbers_.end() ? otherwise : it->second;
  }
  std::string text(const std::string& key) const {
    const auto it = texts_.find(key);
    return it == texts_.end() ? "" : it->second;
  }
  const Tensor& tensor(const std::string& name) const {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) throw std::runtime_error("GGUF has no tensor " + name);
    return it->second;
  }
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }

 private:
  const uint8_t* base_ = nullptr;
  uint64_t size_ = 0, at_ = 0;
  std::map<std::string, double> numbers_;
  std::map<std::string, std::string> texts_;
  std::map<std::string, Tensor> tensors_;

  const uint8_t* take(uint64_t n) {
    if (n > size_ - at_) throw std::runtime_error("GGUF is cut short");
    const uint8_t* p = base_ + at_;
    at_ += n;
    return p;
  }
  template <class T>
  T get() {
    T v;
    std::memcpy(&v, take(sizeof(T)), sizeof(T));
    return v;
  }
  std::string getText() {
    const auto n = get<uint64_t>();
    const auto* p = take(n);
    return std::string(reinterpret_cast<const char*>(p), n);
  }

  static uint64_t scalarBytes(uint32_t type) {
    switch (type) {
      case 0: case 1: case 7: return 1;
      case 2: case 3: return 2;
      case 4: case 5: case 6: return 4;
      case 10: case 11: case 12: return 8;
      default: throw std::runtime_error("GGUF has metadata of unknown type " + std::to_string(type));
    }
  }
  double getNumber(uint32_t type) {
    switch (type) {
      case 0: case 7: return get<uint8_t>();
      case 1: return get<int8_t>();
      case 2: return get<uint16_t>();
      case 3: return get<int16_t>();
      case 4: return get<uint32_t>();
      case 5: return get<int32_t>();
      case 6: return static_cast<double>(get<float>());
      case 10: return static_cast<double>(get<uint64_t>());
      case 11: return static_cast<double>(get<int64_t>());
      case 12: return get<double>();
      default: throw std::runtime_error("GGUF has metadata of unknown type " + std::to_string(type));
    }
  }
  void skipArray() {
    const auto type = get<uint32_t>();
    const auto n = get<uint64_t>();
    if (type == 8) {
      for (uint64_t i = 0; i < n; i++) take(get<uint64_t>());
    } else {
      if (n > size_) throw std::runtime_error("GGUF is cut short");
      take(n * scalarBytes(type));
    }
  }

  void parse(const std::string& path) {
    if (std::memcmp(take(4), "GGUF", 4) != 0) throw std::runtime_error(path + " is not a GGUF file");
    const auto version = get<uint32_t>();
    if (version != 2 && version != 3) throw std::runtime_error("GGUF version " + std::to_string(version) + " is not known");
    const auto tensorCount = get<uint64_t>();
    const auto keyCount = get<uint64_t>();
    for (uint64_t i = 0; i < keyCount; i++) {
      const std::string key = getText();
      const auto type = get<uint32_t>();
      if (type == 8) texts_[key] = getText();
      else if (type == 9) skipArray();
      else numbers_[key] = getNumber(type);
    }
    std::vector<std::pair<std::string, uint64_t>> offsets;
    for (uint64_t i = 0; i < tensorCount; i++) {
      const std::string name = getText();
      Tensor t;
      const auto dims = get<uint32_t>();
      if (dims > 4) throw std::runtime_error("tensor " + name + " has " + std::to_string(dims) + " dimensions");
      for (uint32_t d = 0; d < dims; d++) t.shape.push_back(get<uint64_t>());
      t.type = get<uint32_t>();
      offsets.emplace_back(name, get<uint64_t>());
      tensors_[name] = t;
    }
    const auto align = static_cast<uint64_t>(number("general.alignment", 32));
    const uint64_t start = (at_ + align - 1) / align * align;
    for (const auto& [name, offset] : offsets) {
      if (start > size_ || offset > size_ - start) throw std::runtime_error("tensor " + name + " lies outside the file");
      tensors_[name].data = base_ + start + offset;
      tensors_[name].room = size_ - start - offset;
    }
  }
};

}  // namespace ref
