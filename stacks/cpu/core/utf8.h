// UTF-8, one character at a time.
#pragma once
#include <string>
#include <string_view>

// code: a code point; -1: no character starts here; -2: the text ends inside what may become a character.
// length: bytes to step over. For -1 that is the longest part that one U+FFFD replaces (Unicode 3.9, "maximal subpart").
struct Utf8 { int code, length; };
Utf8 utf8_at(std::string_view text, size_t at);
void put_utf8(std::string& out, int code);
// Moves what is decided from bytes to the end of out, with U+FFFD for what is no character. `last`: no more bytes will follow.
void move_utf8(std::string& bytes, std::string& out, bool last);
