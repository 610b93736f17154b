// GPT-2 byte-level BPE with SmolLM's pre-tokenizer (every digit alone, then GPT-2's pattern), and the ChatML prompt.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>
#include "gguf.h"

struct Message { std::string role, content; };

class Tokenizer {
 public:
  explicit Tokenizer(const Gguf& file);  // throws std::runtime_error when the file's tokenizer is another one
  // Text must be UTF-8. Special tokens inside it are plain text: nobody can inject <|im_end|>.
  std::vector<int> encode(std::string_view text) const;
  std::vector<int> chat(const std::vector<Message>& messages) const;
  // The bytes that a token stands for: maybe only a part of a character, and none for a control token.
  const std::string& text(int id) const { return texts_[id]; }

 private:
  struct Merge { int rank, id; };
  void encode_word(std::string_view word, std::vector<int>& out) const;
  std::vector<std::string> texts_;
  std::unordered_map<uint64_t, Merge> merges_;  // key: left id << 32 | right id
  int byte_ids_[256];                           // -1: the vocabulary lacks this byte
  int im_start_, im_end_;
};
