// Pieces of text that the rendering functions share: tables, units, fields of JSON objects. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/json.h"

namespace pare::cli {

using Rows = std::vector<std::vector<std::string>>;

// Columns padded to their widest cell; the first row is the heading. Columns of numbers are right-aligned, columns without
// any content are left out.
std::string Table(const Rows& rows);
// Characters as a terminal counts them: UTF-8 continuation bytes take no room.
size_t TextWidth(const std::string& text);
std::string Pad(const std::string& text, size_t width);
inline constexpr size_t kUnlimited = static_cast<size_t>(-1);
inline constexpr size_t kShortestName = 8;  // to which names give way where there is no room
// At most `width` characters; one that stands for more ends with "…".
std::string Elide(const std::string& text, size_t width);
// At most `rows` lines of at most `columns` characters.
std::string Clip(const std::string& text, size_t columns, size_t rows);

std::string HumanBytes(int64_t bytes);      // "1.04 MB"
std::string HumanCount(double count);       // "25.5 k"
std::string HumanDuration(double seconds);  // "2 m 05 s"
std::string Format(const char* format, double value);

inline constexpr const char* kNone = "–";  // where a number would stand

// Fields of an object: empty, or kNone, where there is no such value.
std::string Text(const Json& object, const char* field);
std::string Number(const Json& object, const char* field, const char* format);
std::string Percentage(const Json& object, const char* field);  // of a fraction
std::string Bytes(const Json& object, const char* field);
std::string Counted(const Json& object, const char* field, const std::string& noun);  // "1 step", "2 steps"

}  // namespace pare::cli
