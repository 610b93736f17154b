// Frames on stdin and stdout, little-endian.
//
//   request:  u32 'VSRQ'  u32 id  u32 sequences, then for each: u32 length  u32 from  u32 extras  i32 tokens[length]  (u32 position, i32 id)[extras]
//   answer:   u32 'VSRS'  u32 id  u32 status    u32 bytes, then the payload
//
// status 0: for each sequence, for each position from `from` on: i32 ids[top]  f32 logprobs[top]  f32 next (NaN after the last token);
// then f32 per extra. status 1: a message. Before the first request one answer with id 0 carries a JSON object: what was loaded.
// A request is refused over 16,384 tokens, 4,096 sequences, 65,536 extras: an answer is at most 8.7 MB.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.hpp"
#include "score.hpp"

namespace ref {

constexpr uint32_t REQUEST = 0x51525356, ANSWER = 0x53525356;
constexpr uint32_t MAX_TOKENS = 16384, MAX_SEQUENCES = 4096, MAX_EXTRAS = 65536;

struct EndOfInput {};

// Reads exactly, or throws EndOfInput: whoever closes stdin ends this process.
inline void readExactly(void* to, size_t bytes) {
  if (bytes > 0 && std::fread(to, 1, bytes, stdin) != bytes) throw EndOfInput{};
}
inline uint32_t readU32() {
  uint32_t v;
  readExactly(&v, 4);
  return v;
}

inline void writeAnswer(uint32_t id, uint32_t status, const std::vector<char>& payload) {
  const uint32_t head[4] = {ANSWER, id, status, static_cast<uint32_t>(payload.size())};
  std::fwrite(head, 1, sizeof(head), stdout);
  std::fwrite(payload.data(), 1, payload.size(), stdout);
  std::fflush(stdout);
}
inline void writeText(uint32_t id, uint32_t status, const std::string& text) { writeAnswer(id, status, {text.begin(), text.end()}); }

// Bounds are checked before memory is taken; a frame that breaks them can't be skipped, so it ends the process.
inline std::vector<Sequence> readSequences() {
  const uint32_t count = readU32();
  if (count > MAX_SEQUENCES) throw std::runtime_error("request has " + std::to_string(count) + " sequences, over " + std::to_string(MAX_SEQUENCES));
  std::vector<Sequence> sequences(count);
  uint64_t tokens = 0, extras = 0;
  for (Sequence& s : sequences) {
    const uint32_t length = readU32();
    s.from = readU32();
    const uint32_t more = readU32();
    tokens += length;
    extras += more;
    if (tokens > MAX_TOKENS || extras > MAX_EXTRAS)
      throw std::runtime_error("request is over " + std::to_string(MAX_TOKENS) + " tokens or " + std::to_string(MAX_EXTRAS) + " extras");
    s.tokens.resize(length);
    readExactly(s.tokens.data(), size_t{length} * 4);
    for (uint32_t e = 0; e < more; e++) {
      const uint32_t position = readU32();
      s.extras.emplace_back(position, static_cast<int32_t>(readU32()));
    }
  }
  return sequences;
}

// Empty if the sequences can be scored, else why not.
inline std::string problemOf(const Model& m, const std::vector<Sequence>& sequences) {
  const auto isId = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < m.vocab; };
  for (const Sequence& s : sequences) {
    if (s.tokens.empty()) return "a sequence is empty";
    if (s.tokens.size() > m.context) return "a sequence is longer than the context of " + std::to_string(m.context);
    if (s.from >= s.tokens.size()) return "`from` lies behind the end of its sequence";
    for (const int32_t id : s.tokens)
      if (!isId(id)) return "token id " + std::to_string(id) + " is outside the vocabulary";
    for (const auto& [position, id] : s.extras)
      if (!isId(id) || position < s.from || position >= s.tokens.size()) return "an extra lies outside the vocabulary or the wanted positions";
  }
  return "";
}

inline std::vector<char> payloadOf(const std::vector<Scored>& scored) {
  std::vector<char> out;
  const auto put = [&out](const void* p, size_t bytes) { out.insert(out.end(), static_cast<const char*>(p), static_cast<const char*>(p) + bytes); };
  for (const Scored& s : scored) {
    for (const Prediction& p : s.positions) {
      put(p.ids.data(), p.ids.size() * 4);
      put(p.logprobs.data(), p.logprobs.size() * 4);
      put(&p.next, 4);
    }
    put(s.extras.data(), s.extras.size() * 4);
  }
  return out;
}

}  // namespace ref
