#include "recipes/findings.h"

#include <algorithm>
#include <tuple>

#include "common/json.h"

namespace pare::recipes {

void Errors::Add(const std::string& pointer, const std::string& text) { errors_.push_back({PositionOf(positions_, pointer), text}); }

Error Errors::ToError() const {
  std::vector<Entry> sorted = errors_;
  auto place = [](const Entry& e) { return std::tie(e.position.line, e.position.column); };
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Entry& a, const Entry& b) { return place(a) < place(b); });
  std::vector<std::string> lines;
  for (const Entry& e : sorted) {
    std::string where = e.position.line == 0 ? "" : ":" + std::to_string(e.position.line) + ":" + std::to_string(e.position.column);
    std::string line = name_ + where + ": " + e.text;
    if (std::find(lines.begin(), lines.end(), line) != lines.end()) continue;
    if (lines.size() == kMaxErrorsShown) {
      lines.push_back(name_ + ": and more: only the first " + std::to_string(kMaxErrorsShown) + " errors are shown");
      break;
    }
    lines.push_back(std::move(line));
  }
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  return {ErrorCode::kInvalid, text};
}

YamlPosition PositionOf(const std::map<std::string, YamlPosition>& positions, std::string pointer) {
  for (;;) {
    if (auto it = positions.find(pointer); it != positions.end()) return it->second;
    if (pointer.empty()) return {};
    pointer.resize(pointer.rfind('/'));
  }
}

std::string Escaped(const std::string& key) {
  std::string out;
  for (char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

std::string Shortened(std::string text) {
  constexpr size_t kMaxBytes = 60;
  if (text.size() <= kMaxBytes) return text;
  size_t end = kMaxBytes;
  while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

std::string Quoted(const std::string& word) {
  std::string json = Canonical(Json(word));
  return "'" + Shortened(json.substr(1, json.size() - 2)) + "'";
}

}  // namespace pare::recipes
