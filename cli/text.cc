#include "cli/text.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "common/plural.h"

namespace pare::cli {
namespace {

bool IsNumber(const std::string& cell) {
  return !cell.empty() && (std::isdigit(static_cast<unsigned char>(cell[0])) || cell[0] == '-' || cell[0] == '+' || cell == kNone);
}

struct Column {
  size_t width = 0;
  bool right = true, empty = true;
};

// Where the text has `columns` characters, or its end.
size_t Cut(const std::string& line, size_t columns) {
  size_t at = 0;
  for (; at < line.size(); ++at) {
    if ((line[at] & 0xC0) != 0x80 && columns-- == 0) return at;
  }
  return at;
}

}  // namespace

size_t TextWidth(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string Pad(const std::string& text, size_t width) { return text + std::string(width - std::min(width, TextWidth(text)), ' '); }

std::string Table(const Rows& rows) {
  std::vector<Column> columns;
  for (const auto& row : rows) {
    columns.resize(std::max(columns.size(), row.size()), Column{.empty = rows.size() > 1});
    for (size_t c = 0; c < row.size(); ++c) {
      columns[c].width = std::max(columns[c].width, TextWidth(row[c]));
      if (&row == &rows[0] || row[c].empty()) continue;
      columns[c].empty = false;
      if (!IsNumber(row[c])) columns[c].right = false;
    }
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      if (columns[c].empty) continue;
      std::string pad(columns[c].width - TextWidth(row[c]), ' ');
      line += (line.empty() ? "" : "  ") + (columns[c].right ? pad + row[c] : row[c] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string Elide(const std::string& text, size_t width) {
  if (TextWidth(text) <= width) return text;
  return width == 0 ? "" : text.substr(0, Cut(text, width - 1)) + "…";
}

std::string Clip(const std::string& text, size_t columns, size_t rows) {
  std::string out;
  size_t lines = 0;
  for (size_t begin = 0, end = 0; begin < text.size() && lines < rows; begin = end + 1, ++lines) {
    end = std::min(text.find('\n', begin), text.size());
    out += Elide(text.substr(begin, end - begin), columns) + "\n";
  }
  return out;
}

std::string Format(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string HumanBytes(int64_t bytes) {
  auto v = static_cast<double>(bytes);
  if (bytes < 1000) return std::to_string(bytes) + " B";
  if (v < 1e6) return Format("%.1f kB", v / 1e3);
  if (v < 1e9) return Format("%.2f MB", v / 1e6);
  return Format("%.2f GB", v / 1e9);
}

std::string HumanCount(double count) {
  if (count < 1e3) return Format("%.0f", count);
  if (count < 1e6) return Format("%.1f k", count / 1e3);
  if (count < 1e9) return Format("%.1f M", count / 1e6);
  return Format("%.1f G", count / 1e9);
}

std::string HumanDuration(double seconds) {
  if (seconds < 9.95) return Format("%.1f s", seconds);
  auto s = static_cast<int64_t>(std::llround(seconds));
  char text[64];
  if (s < 60) std::snprintf(text, sizeof text, "%lld s", static_cast<long long>(s));
  else if (s < 3600) std::snprintf(text, sizeof text, "%lld m %02lld s", static_cast<long long>(s / 60), static_cast<long long>(s % 60));
  else std::snprintf(text, sizeof text, "%lld h %02lld m", static_cast<long long>(s / 3600), static_cast<long long>(s % 3600 / 60));
  return text;
}

std::string Text(const Json& object, const char* field) {
  auto it = object.find(field);
  if (it == object.end() || it->is_null()) return "";
  return it->is_string() ? it->get<std::string>() : Canonical(*it);
}

std::string Number(const Json& object, const char* field, const char* format) {
  auto it = object.find(field);
  return it == object.end() || !it->is_number() ? kNone : Format(format, it->get<double>());
}

std::string Percentage(const Json& object, const char* field) {
  auto it = object.find(field);
  return it == object.end() || !it->is_number() ? kNone : Format("%.2f %%", 100.0 * it->get<double>());
}

std::string Bytes(const Json& object, const char* field) {
  auto it = object.find(field);
  return it == object.end() || !it->is_number() ? kNone : HumanBytes(it->get<int64_t>());
}

std::string Counted(const Json& object, const char* field, const std::string& noun) {
  auto it = object.find(field);
  return it == object.end() || !it->is_number_integer() ? std::string(kNone) + " " + noun + "s" : Plural(it->get<int64_t>(), noun);
}

}  // namespace pare::cli
