// The positions of a request as a tree: sequences that start alike share the positions of that start, which are computed once.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace ref {

struct Sequence {
  std::vector<int32_t> tokens;
  uint32_t from = 0;                                   // first position whose prediction is wanted
  std::vector<std::pair<uint32_t, int32_t>> extras;    // (position, id) whose log-probability is wanted too
};

struct Batch {
  struct Path {
    std::vector<uint32_t> nodes;  // node of each position of the sequence
    size_t own = 0;               // the first position that no earlier sequence computes
  };
  std::vector<int32_t> tokens;   // of each node
  std::vector<uint32_t> depths;  // position of each node
  std::vector<Path> paths;       // of each sequence
};

inline Batch makeBatch(const std::vector<Sequence>& sequences) {
  Batch b;
  std::unordered_map<uint64_t, uint32_t> children;  // (parent + 1, token) -> node
  for (const Sequence& s : sequences) {
    Batch::Path path;
    uint64_t parent = 0;
    for (size_t i = 0; i < s.tokens.size(); i++) {
      const uint64_t key = parent << 32 | static_cast<uint32_t>(s.tokens[i]);
      const auto [it, isNew] = children.emplace(key, static_cast<uint32_t>(b.tokens.size()));
      if (isNew) {
        b.tokens.push_back(s.tokens[i]);
        b.depths.push_back(static_cast<uint32_t>(i));
      } else {
        path.own = i + 1;
      }
      path.nodes.push_back(it->second);
      parent = uint64_t{it->second} + 1;
    }
    b.paths.push_back(std::move(path));
  }
  return b;
}

}  // namespace ref
