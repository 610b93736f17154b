#include "tokenizer.h"
#include <queue>
#include <stdexcept>
#include "json.h"
#include "unicode.h"

namespace {
// GPT-2 writes bytes as characters: printable Latin-1 as itself, the 68 others as U+0100, U+0101, …
std::vector<int> byte_characters() {
  std::vector<int> codes(256);
  for (int b = 0, next = 256; b < 256; ++b) codes[b] = (b > 32 && b < 127) || (b > 160 && b != 173) ? b : next++;
  return codes;
}

uint64_t pair_key(int left, int right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }

// The end of the word that starts at `at`. The pattern, first match wins, never across a number (those are words of their own):
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t word_end(std::string_view text, size_t at) {
  const auto kind = [&](size_t i) { return i < text.size() ? unicode_class(utf8_at(text, i).code) : Class::End; };
  const auto run_end = [&](size_t i, Class k) {
    while (kind(i) == k) i += utf8_at(text, i).length;
    return i;
  };
  const Class first = kind(at);
  if (first == Class::Number) return at + utf8_at(text, at).length;
  for (std::string_view suffix : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (text.substr(at, suffix.size()) == suffix) return at + suffix.size();
  }
  if (first != Class::Space) return run_end(at, first);
  const Class second = text[at] == ' ' ? kind(at + 1) : Class::Space;
  if (second == Class::Letter || second == Class::Other) return run_end(at + 1, second);
  size_t end = at, last = at;  // last: where the run's last character starts
  while (kind(end) == Class::Space) last = end, end += utf8_at(text, end).length;
  // Before a letter or sign the run leaves its last character over, unless it is the only one.
  return kind(end) == Class::End || kind(end) == Class::Number || last == at ? end : last;
}
}  // namespace

Tokenizer::Tokenizer(const Gguf& file) {
  const auto string = [&](const char* key) { return file.strings.count(key) ? file.strings.at(key) : std::string("missing"); };
  const std::string model = string("tokenizer.ggml.model"), pre = string("tokenizer.ggml.pre");
  if (model != "gpt2" || pre != "smollm" || !file.lists.count("tokenizer.ggml.tokens") || !file.lists.count("tokenizer.ggml.merges")) {
    throw std::runtime_error("the file's tokenizer is '" + model + "' with pre '" + pre + "'; only gpt2 with pre smollm is served");
  }
  const auto &tokens = file.lists.at("tokenizer.ggml.tokens"), &merges = file.lists.at("tokenizer.ggml.merges");
  const auto types = file.number_lists.find("tokenizer.ggml.token_type");
  std::unordered_map<std::string, int> ids;
  for (size_t i = 0; i < tokens.size(); ++i) ids[tokens[i]] = int(i);
  const auto id_of = [&](const std::string& token) {
    if (!ids.count(token)) throw std::runtime_error("the file's vocabulary has no token '" + token + "'");
    return ids.at(token);
  };
  im_start_ = id_of("<|im_start|>"), im_end_ = id_of("<|im_end|>");
  std::unordered_map<int, char> bytes;
  const std::vector<int> codes = byte_characters();
  for (int b = 0; b < 256; ++b) {
    std::string character;
    put_utf8(character, codes[b]);
    byte_ids_[b] = ids.count(character) ? ids.at(character) : -1;
    bytes[codes[b]] = char(b);
  }
  texts_.resize(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (types != file.number_lists.end() && i < types->second.size() && types->second[i] != 1) continue;
    for (size_t at = 0; at < tokens[i].size(); at += utf8_at(tokens[i], at).length) {
      const auto found = bytes.find(utf8_at(tokens[i], at).code);
      if (found == bytes.end()) throw std::runtime_error("token " + std::to_string(i) + " is not byte-level text");
      texts_[i] += found->second;
    }
  }
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const size_t space = merges[rank].find(' ');
    if (space == std::string::npos) throw std::runtime_error("merge " + std::to_string(rank) + " is not a pair");
    const std::string left = merges[rank].substr(0, space), right = merges[rank].substr(space + 1);
    merges_[pair_key(id_of(left), id_of(right))] = {int(rank), id_of(left + right)};
  }
}

void Tokenizer::encode_word(std::string_view word, std::vector<int>& out) const {
  struct Symbol { int id, previous, next; };
  struct Candidate { int rank, at, id; };
  const auto later = [](const Candidate& a, const Candidate& b) { return a.rank != b.rank ? a.rank > b.rank : a.at > b.at; };
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate, std::vector<Candidate>, decltype(later)> candidates(later);
  for (const char c : word) {
    const int id = byte_ids_[uint8_t(c)], at = int(symbols.size());
    if (id >= 0) symbols.push_back({id, at - 1, at + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  const auto merge_at = [&](int at) {
    const auto found = symbols[at].next < 0 ? merges_.end() : merges_.find(pair_key(symbols[at].id, symbols[symbols[at].next].id));
    return found == merges_.end() ? nullptr : &found->second;
  };
  const auto propose = [&](int at) {
    if (const Merge* m = at < 0 ? nullptr : merge_at(at)) candidates.push({m->rank, at, m->id});
  };
  for (int at = 0; at < int(symbols.size()); ++at) propose(at);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Symbol& left = symbols[best.at];
    const Merge* merge = left.id < 0 ? nullptr : merge_at(best.at);
    if (!merge || merge->id != best.id) continue;  // an earlier merge took one of its halves
    Symbol& right = symbols[left.next];
    left = {best.id, left.previous, right.next};
    right.id = -1;
    if (left.next >= 0) symbols[left.next].previous = best.at;
    propose(left.previous);
    propose(best.at);
  }
  for (int at = 0; at >= 0; at = symbols[at].next) out.push_back(symbols[at].id);
}

std::vector<int> Tokenizer::encode(std::string_view text) const {
  std::vector<int> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = word_end(text, at);
    encode_word(text.substr(at, end - at), out);
    at = end;
  }
  return out;
}

std::vector<int> Tokenizer::chat(const std::vector<Message>& messages) const {
  std::vector<int> out;
  const auto put = [&](int special, const std::string& text) {
    out.push_back(special);
    for (const int id : encode(text)) out.push_back(id);
  };
  const auto turn = [&](const Message& m) { put(im_start_, m.role + "\n" + m.content), put(im_end_, "\n"); };
  if (messages.empty() || messages[0].role != "system") {
    turn({"system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"});  // as the file's chat_template has it
  }
  for (const Message& m : messages) turn(m);
  put(im_start_, "assistant\n");
  return out;
}
