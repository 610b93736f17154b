// GGUF v3 reader: memory-maps the file; tensors stay in the file's format.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

enum class Type : uint32_t { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q8_0 = 8 };

// A matrix of `rows` rows of `cols` values each (a vector has rows == 1). Row r starts at data + r * row_bytes().
struct Tensor {
  Type type;
  int rows, cols;
  const uint8_t* data;
  size_t row_bytes() const;
};

void dequantise_row(const Tensor& t, int row, float* out);  // exact float32 values of the file's format

struct Gguf {
  std::unordered_map<std::string, Tensor> tensors;
  std::unordered_map<std::string, double> numbers;
  std::unordered_map<std::string, std::string> strings;
  std::unordered_map<std::string, std::vector<std::string>> lists;    // arrays of strings
  std::unordered_map<std::string, std::vector<double>> number_lists;  // arrays of numbers
  const Tensor& tensor(const std::string& name) const;                // throws naming the tensor
  double number(const std::string& key) const;                        // throws naming the key
};

Gguf read_gguf(const char* path);  // throws std::runtime_error naming the path, the offset and what was expected
