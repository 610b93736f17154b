// One row of a quantised matrix as float32. Formats: F32, F16, Q4_0, Q4_1, Q8_0 (blocks of 32 values).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "gguf.hpp"

namespace ref {

enum : uint32_t { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q8_0 = 8 };

inline float halfToFloat(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int fraction = h & 1023;
  float v;
  if (exponent == 0) v = std::ldexp(static_cast<float>(fraction), -24);
  else if (exponent == 31) v = fraction == 0 ? INFINITY : NAN;
  else v = std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return (h & 0x8000) != 0 ? -v : v;
}

// A table of all halves: ldexp is too slow for every block.
inline const float* halfTable() {
  static const float* table = [] {
    auto* t = new float[65536];
    for (int i = 0; i < 65536; i++) t[i] = halfToFloat(static_cast<uint16_t>(i));
    return t;
  }();
  return table;
}

// A matrix of `rows` rows of `cols` values: y = W x with x of length cols.
class Matrix {
 public:
  Matrix() = default;
  Matrix(const Gguf& file, const std::string& name, uint64_t cols, uint64_t rows) : rows_(rows), cols_(cols) {
    const Tensor& t = file.tensor(name);
    if (t.shape.size() != 2 || t.shape[0] != cols || t.shape[1] != rows)
      throw std::runtime_error("tensor " + name + " is not " + std::to_string(cols) + " x " + std::to_string(rows));
    type_ = t.type;
    switch (type_) {
      case F32: rowBytes_ = cols * 4; break;
      case F16: rowBytes_ = cols * 2; break;
      case Q4_0: rowBytes_ = cols / 32 * 18; break;
      case Q4_1: rowBytes_ = cols / 32 * 20; break;
      case Q8_0: rowBytes_ = cols / 32 * 34; break;
      default: throw std::runtime_error("tensor " + name + " has type " + std::to_string(type_) + ", which the reference does not read");
    }
    if (type_ != F32 && type_ != F16 && cols % 32 != 0) throw std::runtime_error("tensor " + name + " has rows that are not whole blocks");
    if (rowBytes_ * rows > t.room) throw std::runtime_error("tensor " + name + " lies outside the file");
    data_ = t.data;
  }
  uint64_t rows() const { return rows_; }
  uint64_t cols() const { return cols_; }

  void row(uint64_t r, float* out) const {
    const uint8_t* p = data_ + r * rowBytes_;
    if (type_ == F32) {
      std::memcpy(out, p, cols_ * 4);
      return;
    }
    const float* half = halfTable();
    const auto readHalf = [half](const uint8_t* q) {
      uint16_t h;
      std::memcpy(&h, q, 2);
      return half[h];
    };
    if (type_ == F16) {
      for (uint64_t i = 0; i < cols_; i++) out[i] = readHalf(p + 2 * i);
      return;
    }
    for (uint64_t b = 0; b < cols_ / 32; b++, out += 32) {
      const float d = readHalf(p);
      if (type_ == Q8_0) {
        for (int i = 0; i < 32; i++) out[i] = d * static_cast<float>(static_cast<int8_t>(p[2 + i]));
        p += 34;
      } else if (type_ == Q4_0) {
        for (int i = 0; i < 16; i++) {
          out[i] = d * static_cast<float>((p[2 + i] & 15) - 8);
          out[i + 16] = d * static_cast<float>((p[2 + i] >> 4) - 8);
        }
        p += 18;
      } else {
        const float m = readHalf(p + 2);
        for (int i = 0; i < 16; i++) {
          out[i] = d * static_cast<float>(p[4 + i] & 15) + m;
          out[i + 16] = d * static_cast<float>(p[4 + i] >> 4) + m;
        }
        p += 20;
      }
    }
  }

 private:
  const uint8_t* data_ = nullptr;
  uint64_t rows_ = 0, cols_ = 0, rowBytes_ = 0;
  uint32_t type_ = F32;
};

}  // namespace ref
