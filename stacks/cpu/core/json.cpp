#include "json.h"
#include <charconv>
#include <stdexcept>
#include "utf8.h"

namespace {
struct Reader {
  std::string_view text;
  size_t at = 0;

  [[noreturn]] void fail(const char* what) const { throw std::runtime_error(std::string(what) + " at offset " + std::to_string(at)); }
  char peek() const { return at < text.size() ? text[at] : '\0'; }
  bool skip(char c) { return peek() == c && at < text.size() ? ++at : false; }
  void space() {
    while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++at;
  }
  void word(std::string_view expected) {
    if (text.substr(at, expected.size()) != expected) fail("Expected a JSON value");
    at += expected.size();
  }
  int hex4() {
    int code = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + std::min(at + 4, text.size()), code, 16);
    if (error != std::errc() || end != text.data() + at + 4 || peek() == '-') fail("Expected four hexadecimal digits");
    at += 4;
    return code;
  }
  void escape(std::string& out) {
    static constexpr std::string_view names = "\"\\/bfnrt", values = "\"\\/\b\f\n\r\t";
    if (const size_t i = names.find(peek()); i != names.npos && at < text.size()) {
      out += values[i], ++at;
      return;
    }
    if (!skip('u')) fail("Expected an escape");
    int code = hex4();
    if (code >= 0xD800 && code < 0xDC00) {
      if (!skip('\\') || !skip('u')) fail("Expected the second half of a surrogate pair");
      const int low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("Expected the second half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      fail("Expected no lone surrogate");
    }
    put_utf8(out, code);
  }
  std::string string() {
    std::string out;
    for (word("\""); !skip('"');) {
      if (at >= text.size() || uint8_t(text[at]) < 32) fail("Expected the end of a string");
      if (skip('\\')) { escape(out); continue; }
      const auto [code, length] = utf8_at(text, at);
      if (code < 0) fail("Expected UTF-8");
      out.append(text, at, length);
      at += length;
    }
    return out;
  }
  double number() {
    const size_t start = at;
    const auto digits = [&] {
      const size_t first = at;
      while (peek() >= '0' && peek() <= '9') ++at;
      if (at == first) fail("Expected a JSON value");
      return text[first] == '0' && at - first > 1;
    };
    skip('-');
    if (digits()) fail("Expected no leading zero");
    if (skip('.')) digits();
    if (skip('e') || skip('E')) { skip('+') || skip('-'); digits(); }
    double value = 0;
    const auto [end, error] = std::from_chars(text.data() + start, text.data() + at, value);
    if (error != std::errc()) fail("Expected a number that a double can hold");
    return value;
  }
  Json value(int depth) {
    Json v;
    space();
    if (depth > 32) fail("Expected no deeper nesting");
    switch (peek()) {
      case '{': v.kind = Json::Object; break;
      case '[': v.kind = Json::Array; break;
      case '"': v.kind = Json::String, v.string = string(); return v;
      case 't': word("true"), v.kind = Json::Bool, v.boolean = true; return v;
      case 'f': word("false"), v.kind = Json::Bool; return v;
      case 'n': word("null"); return v;
      default: v.kind = Json::Number, v.number = number(); return v;
    }
    const char close = v.kind == Json::Object ? '}' : ']';
    ++at, space();
    if (skip(close)) return v;
    do {
      if (v.kind == Json::Object) {
        space();
        v.keys.push_back(string());
        for (size_t i = 0; i + 1 < v.keys.size(); ++i) if (v.keys[i] == v.keys.back()) fail("Expected each key once");
        space();
        if (!skip(':')) fail("Expected ':'");
      }
      v.items.push_back(value(depth + 1));
      space();
    } while (skip(','));
    if (!skip(close)) fail("Expected ',' or the end of a list");
    return v;
  }
};
}  // namespace

Json parse_json(std::string_view text) {
  Reader reader{text};
  Json v = reader.value(0);
  reader.space();
  if (reader.at < text.size()) reader.fail("Expected nothing more");
  return v;
}

void put_string(std::string& out, std::string_view utf8) {
  out += '"';
  for (size_t at = 0; at < utf8.size();) {
    const auto [code, length] = utf8_at(utf8, at);
    if (code == '"' || code == '\\') out += '\\', out += char(code);
    else if (code == '\n') out += "\\n";
    else if (code >= 0 && code < 32) out += "\\u00", out += "01"[code / 16], out += "0123456789abcdef"[code % 16];
    else if (code < 0) out += "\xEF\xBF\xBD";
    else out.append(utf8, at, length);
    at += length;
  }
  out += '"';
}

void put_number(std::string& out, float finite) {
  char buffer[32];
  out.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, finite).ptr);
}

void put_list(std::string& out, const std::vector<int>& numbers) {
  out += '[';
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i) out += ',';
    out += std::to_string(numbers[i]);
  }
  out += ']';
}
