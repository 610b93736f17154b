#include "utf8.h"

Utf8 utf8_at(std::string_view text, size_t at) {
  const int first = uint8_t(text[at]);
  if (first < 0x80) return {first, 1};
  const int more = first < 0xC2 || first > 0xF4 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  if (more == 0) return {-1, 1};
  int code = first & (0x3F >> more);
  for (int i = 1; i <= more; ++i) {
    if (at + i >= text.size()) return {-2, i};
    const int byte = uint8_t(text[at + i]);
    // The second byte's range is what excludes overlong forms, surrogates and codes past U+10FFFF.
    const int low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const int high = i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (byte < low || byte > high) return {-1, i};
    code = code << 6 | (byte & 0x3F);
  }
  return {code, more + 1};
}

void put_utf8(std::string& out, int code) {
  const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  out += char(more == 0 ? code : (0xFF00 >> (more + 1) & 0xFF) | code >> 6 * more);
  for (int i = more - 1; i >= 0; --i) out += char(0x80 | (code >> 6 * i & 0x3F));
}

void move_utf8(std::string& bytes, std::string& out, bool last) {
  size_t at = 0;
  while (at < bytes.size()) {
    const auto [code, length] = utf8_at(bytes, at);
    if (code == -2 && !last) break;
    if (code < 0) out += "\xEF\xBF\xBD"; else out.append(bytes, at, length);
    at += length;
  }
  bytes.erase(0, at);
}
