// JSON (RFC 8259): a strict reader and the parts of a writer. UTF-8, one character at a time.
#pragma once
#include <string>
#include <string_view>
#include <vector>

struct Json {
  enum Kind : unsigned char { Null, Bool, Number, String, Array, Object } kind = Null;
  bool boolean = false;
  double number = 0;
  std::string string;
  std::vector<Json> items;        // an array's elements, or an object's values
  std::vector<std::string> keys;  // an object's keys, in order, each once
};
// Throws std::runtime_error with the offset. Refuses invalid UTF-8, lone surrogates, a key twice, and nesting beyond 32.
Json parse_json(std::string_view text);
std::string json_text(std::string_view utf8);   // quoted and escaped; what is no character becomes U+FFFD
std::string json_number(float value);           // the shortest text that reads back as the same float; null when it is not finite
std::string json_list(const std::vector<int>& numbers);

// code: a code point; -1: no character starts here; -2: the text ends inside what may become one. length: bytes to step over; for -1
// that is the part that one U+FFFD replaces (Unicode 3.9, "maximal subpart").
struct Utf8 { int code, length; };
Utf8 utf8_at(std::string_view text, size_t at);
void put_utf8(std::string& out, int code);
// Moves what is decided from bytes to the end of out, with U+FFFD for what is no character. last: no more bytes will follow.
void move_utf8(std::string& bytes, std::string& out, bool last);
