// JSON (RFC 8259): a strict reader, and the parts of a writer.
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

// Throws std::runtime_error with the offset. Refuses invalid UTF-8, lone surrogates, a key twice and nesting beyond 32.
Json parse_json(std::string_view text);
void put_string(std::string& out, std::string_view utf8);  // quoted and escaped; bytes that are no character become U+FFFD
void put_number(std::string& out, float finite);           // the shortest text that reads back as the same float
void put_list(std::string& out, const std::vector<int>& numbers);
