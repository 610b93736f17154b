#include "json.h"
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace {
struct Reader {
  std::string_view text;
  size_t at = 0;

  [[noreturn]] void fail(const char* what) const { throw std::runtime_error(std::string(what) + " at offset " + std::to_string(at)); }
  int peek() const { return at < text.size() ? uint8_t(text[at]) : -1; }
  bool skip(char c) { return peek() == uint8_t(c) && ++at; }
  bool digit() const { return peek() >= '0' && peek() <= '9'; }
  void space() { while (skip(' ') || skip('\n') || skip('\r') || skip('\t')) {} }
  void word(std::string_view expected) { for (const char c : expected) if (!skip(c)) fail("Expected a JSON value"); }
  int hex4() {
    int code = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + std::min(at + 4, text.size()), code, 16);
    if (peek() == '-' || error != std::errc() || end != text.data() + at + 4) fail("Expected four hexadecimal digits");
    at += 4;
    return code;
  }
  int escape() {
    static constexpr std::string_view names = "\"\\/bfnrt", values = "\"\\/\b\f\n\r\t";
    if (const size_t i = names.find(char(peek())); i < names.size() && skip(names[i])) return values[i];
    if (!skip('u')) fail("Expected an escape");
    const int code = hex4();
    const bool pair = code >> 10 == 0xD800 >> 10;
    const int low = pair && skip('\\') && skip('u') ? hex4() : 0;
    if (code >> 10 == 0xDC00 >> 10 || (pair && low >> 10 != 0xDC00 >> 10)) fail("Expected a whole surrogate pair");
    return pair ? 0x10000 + ((code & 0x3FF) << 10 | (low & 0x3FF)) : code;
  }
  std::string string() {
    std::string out;
    for (word("\""); !skip('"');) {
      if (peek() < 32) fail("Expected the end of a string");
      const auto [code, length] = skip('\\') ? Utf8{escape(), 0} : utf8_at(text, at);
      if (code < 0) fail("Expected UTF-8");
      put_utf8(out, code);
      at += length;
    }
    return out;
  }
  double number() {
    const size_t start = at;
    const auto digits = [&] { size_t count = 0; for (; digit(); ++at) ++count; return count; };
    skip('-');
    const bool zero = skip('0');
    bool good = (digits() > 0) != zero;
    if (skip('.')) good &= digits() > 0;
    if (skip('e') || skip('E')) skip('+') || skip('-'), good &= digits() > 0;
    const double value = good ? std::strtod(std::string(text.substr(start, at - start)).c_str(), nullptr) : NAN;
    if (!std::isfinite(value)) fail("Expected a number");
    return value;
  }
  Json value(int depth) {
    Json v;
    if (depth > 32) fail("Expected no deeper nesting");
    space();
    if (peek() == '"') v.kind = Json::String, v.string = string();
    else if (peek() == 't') word("true"), v.kind = Json::Bool, v.boolean = true;
    else if (peek() == 'f') word("false"), v.kind = Json::Bool;
    else if (peek() == 'n') word("null");
    else if (skip('{')) v.kind = Json::Object, list(v, '}', depth);
    else if (skip('[')) v.kind = Json::Array, list(v, ']', depth);
    else v.kind = Json::Number, v.number = number();
    space();
    return v;
  }
  void list(Json& v, char end, int depth) {
    space();
    if (skip(end)) return;
    do {
      if (v.kind == Json::Object) {
        space();
        std::string key = string();
        const bool known = std::find(v.keys.begin(), v.keys.end(), key) != v.keys.end();
        if (known || v.keys.size() == 64) fail("Expected a new key, of at most 64");
        v.keys.push_back(std::move(key));
        space();
        if (!skip(':')) fail("Expected ':'");
      }
      v.items.push_back(value(depth + 1));
    } while (skip(','));
    if (!skip(end)) fail("Expected ',' or the end of a list");
  }
};
}  // namespace

Json parse_json(std::string_view text) {
  Reader reader{text};
  Json v = reader.value(0);
  if (reader.at < text.size()) reader.fail("Expected nothing more");
  return v;
}

std::string json_text(std::string_view utf8) {
  std::string out = "\"";
  for (size_t at = 0; at < utf8.size();) {
    const auto [code, length] = utf8_at(utf8, at);
    if (code == '"' || code == '\\') out += '\\';
    if (code >= 0 && code < 32) ((out += "\\u00") += "01"[code / 16]) += "0123456789abcdef"[code % 16];
    else put_utf8(out, code < 0 ? 0xFFFD : code);
    at += length;
  }
  return out + '"';
}

std::string json_number(float value) {
  char buffer[32];
  return std::isfinite(value) ? std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr) : "null";
}

std::string json_list(const std::vector<int>& numbers) {
  std::string out = "[";
  for (const int n : numbers) (out += out.size() > 1 ? "," : "") += std::to_string(n);
  return out + ']';
}

Utf8 utf8_at(std::string_view text, size_t at) {
  const int first = uint8_t(text[at]), more = first < 0xC2 || first > 0xF4 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
  if (more == 0) return {first < 0x80 ? first : -1, 1};
  int code = first & 0x3F >> more;
  for (int i = 1; i <= more; ++i) {
    if (at + i >= text.size()) return {-2, i};
    // The second byte's range is what excludes overlong forms, surrogates and codes past U+10FFFF.
    const int byte = uint8_t(text[at + i]), low = i > 1 ? 0x80 : first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    if (byte < low || byte > (i > 1 ? 0xBF : first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF)) return {-1, i};
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
  for (; at < bytes.size(); at += utf8_at(bytes, at).length) {
    const int code = utf8_at(bytes, at).code;
    if (code == -2 && !last) break;
    put_utf8(out, code < 0 ? 0xFFFD : code);
  }
  bytes.erase(0, at);
}
