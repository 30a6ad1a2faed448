#include "recipes/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <sstream>
#include <vector>

#include "recipes/findings.h"

namespace pare::recipes {
namespace {

// Ends parsing from inside yaml-cpp's callbacks; caught in ParseYaml.
struct Refused {
  YAML::Mark mark;
  std::string text;
};

// YAML 1.2 core schema: null, true/false, integers, floats, else a string. (1.1's yes/no/on/off stay strings.)
Json TypedScalar(const std::string& text) {
  if (text.empty() || text == "null" || text == "~" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const char* begin = text.data() + (text[0] == '+' && text.size() > 1 && text[1] != '-' ? 1 : 0);
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (auto r = std::from_chars(begin, end, integer); r.ec == std::errc() && r.ptr == end) return integer;
  double number = 0;
  bool digit = text.find_first_of("0123456789") != std::string::npos && text.find_first_not_of("+-.0123456789eE") == std::string::npos;
  if (auto r = std::from_chars(begin, end, number); digit && r.ec == std::errc() && r.ptr == end && std::isfinite(number)) return number;
  return text;
}

// Where the text stops being printable UTF-8, or its size. JSON, step keys and messages are UTF-8: other bytes would make
// two different recipes look alike. And yaml-cpp takes the byte 4 for the end of the text.
size_t PrintableLength(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    auto lead = static_cast<unsigned char>(text[i]);
    size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    if (length == 0 || i + length > text.size() || (lead < 0x20 && lead != '\t' && lead != '\n' && lead != '\r')) return i;
    uint32_t code = length == 1 ? lead : lead & (0x7FU >> length);
    for (size_t k = 1; k < length; ++k) {
      auto next = static_cast<unsigned char>(text[i + k]);
      if (next >> 6 != 2) return i;
      code = code << 6 | (next & 0x3F);
    }
    constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < kSmallest[length] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return i;
    i += length;
  }
  return i;
}

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(YamlDocument& document, std::string_view text) : document_(document), text_(text) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) throw Refused{mark, "a second document; a recipe is one document"};
  }
  void OnDocumentEnd() override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { throw Refused{mark, "aliases (*name) are not part of the language"}; }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    // yaml-cpp's mark is that of whatever comes next; the reader looks at the field that has no value.
    bool field = !stack_.empty() && stack_.back().map && stack_.back().has_key;
    Value(field ? stack_.back().key_mark : mark, "", anchor, nullptr);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    if (tag == "!") Quotation(mark);
    if (!stack_.empty() && stack_.back().map && !stack_.back().has_key) return Key(mark, tag, anchor, value);
    Value(mark, tag, anchor, tag == "!" ? Json(value) : TypedScalar(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, Json::array(), false);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, Json::object(), true);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    Json value;
    bool map;
    std::string pointer;
    bool has_key = false;
    std::string key;
    YAML::Mark key_mark;
  };

  static void Check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) throw Refused{mark, "anchors (&name) are not part of the language"};
    if (!tag.empty() && tag != "?" && tag != "!") throw Refused{mark, "tags (" + Shortened(tag) + ") are not part of the language"};
  }
  // yaml-cpp takes a text whose closing quotation mark is missing to end with the line, without a word. It also reports the
  // tag "!" for quoted texts, hence a "!" that was written is found here.
  void Quotation(const YAML::Mark& mark) const {
    size_t at = static_cast<size_t>(mark.pos);
    char quote = at < text_.size() ? text_[at] : '!';
    if (quote != '"' && quote != '\'') throw Refused{mark, "tags (!) are not part of the language"};
    for (size_t i = at + 1; i < text_.size() && text_[i] != '\n' && text_[i] != '\r'; ++i) {
      if (quote == '"' && text_[i] == '\\') ++i;
      else if (text_[i] == quote && quote == '\'' && i + 1 < text_.size() && text_[i + 1] == quote) ++i;
      else if (text_[i] == quote) return;
    }
    throw Refused{mark, "the quotation mark is not closed on its line"};
  }
  std::string Pointer() const {
    if (stack_.empty()) return "";
    const Frame& top = stack_.back();
    return top.pointer + "/" + (top.map ? Escaped(top.key) : std::to_string(top.value.size()));
  }
  void Note(const std::string& pointer, const YAML::Mark& mark) { document_.positions[pointer] = {mark.line + 1, mark.column + 1}; }

  void Key(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& key) {
    Check(mark, tag, anchor);
    Frame& top = stack_.back();
    if (top.value.contains(key)) throw Refused{mark, Quoted(key) + " is given twice"};
    top.key = key;
    top.key_mark = mark;
    top.has_key = true;
    Note(Pointer() + "#key", mark);
  }
  void Add(Json value) {
    if (stack_.empty()) {
      document_.tree = std::move(value);
      return;
    }
    Frame& top = stack_.back();
    if (top.map) {
      top.value[top.key] = std::move(value);
      top.has_key = false;
    } else {
      top.value.push_back(std::move(value));
    }
  }
  void Value(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Json value) {
    Check(mark, tag, anchor);
    if (!stack_.empty() && stack_.back().map && !stack_.back().has_key) throw Refused{mark, "a field name is missing"};
    Note(Pointer(), mark);
    Add(std::move(value));
  }
  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Json empty, bool map) {
    if (tag == "!") Quotation(mark);
    Check(mark, tag, anchor);
    if (!stack_.empty() && stack_.back().map && !stack_.back().has_key) throw Refused{mark, "a field name must be plain text"};
    if (stack_.size() >= kMaxYamlDepth) throw Refused{mark, "nested deeper than 32 levels"};
    std::string pointer = Pointer();
    Note(pointer, mark);
    stack_.push_back({std::move(empty), map, pointer, false, "", {}});
  }
  void Close() {
    Json value = std::move(stack_.back().value);
    stack_.pop_back();
    Add(std::move(value));
  }

  YamlDocument& document_;
  std::string_view text_;
  std::vector<Frame> stack_;
  int documents_ = 0;
};

Error At(std::string_view name, const YAML::Mark& mark, const std::string& text) {
  return Error{ErrorCode::kInvalid, std::string(name) + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1) + ": " + text};
}

void Emit(YAML::Emitter& out, const Json& value) {
  if (value.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      out << YAML::Key << YAML::DoubleQuoted << key << YAML::Value;
      Emit(out, item);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    out << YAML::Flow << YAML::BeginSeq;
    for (const Json& item : value) Emit(out, item);
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    out << YAML::DoubleQuoted << value.get<std::string>();
  } else if (value.is_null()) {
    out << YAML::Null;
  } else {
    out << Canonical(value);
  }
}

// The first tab among the spaces at the beginning of a line.
std::optional<YAML::Mark> TabAsIndent(std::string_view text) {
  int line = 0;
  for (size_t begin = 0; begin < text.size(); ++line) {
    size_t end = std::min(text.find('\n', begin), text.size()), first = std::min(text.find_first_not_of(' ', begin), end);
    if (first < end && text[first] == '\t') {
      YAML::Mark mark;
      mark.line = line;
      mark.column = static_cast<int>(first - begin);
      return mark;
    }
    begin = end + 1;
  }
  return std::nullopt;
}

}  // namespace

Result<YamlDocument> ParseYaml(std::string_view text, std::string_view name) {
  if (text.size() > kMaxYamlBytes) return Error{ErrorCode::kInvalid, std::string(name) + ": larger than 1 MiB"};
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  if (size_t good = PrintableLength(text); good < text.size()) {
    std::string_view before = text.substr(0, good);
    size_t line = before.rfind('\n') + 1;  // 0 without one
    YAML::Mark mark;
    mark.line = static_cast<int>(std::count(before.begin(), before.end(), '\n'));
    mark.column = static_cast<int>(good - line);
    char byte[8];
    std::snprintf(byte, sizeof byte, "0x%02x", static_cast<unsigned char>(text[good]));
    return At(name, mark, std::string("not a text in UTF-8, or a control character: byte ") + byte);
  }
  YamlDocument document;
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    TreeBuilder builder(document, text);
    while (parser.HandleNextDocument(builder)) {}
  } catch (const Refused& refused) {
    return At(name, refused.mark, refused.text);
  } catch (const YAML::Exception& e) {
    if (std::optional<YAML::Mark> tab = TabAsIndent(text)) return At(name, *tab, "not valid YAML: a tab; indent with spaces");
    return At(name, e.mark, "not valid YAML: " + e.msg);
  } catch (const std::exception& e) {
    return Error{ErrorCode::kInvalid, std::string(name) + ": not valid YAML: " + e.what()};
  }
  return document;
}

std::string RenderYaml(const Json& tree) {
  YAML::Emitter out;
  Emit(out, tree);
  return std::string(out.c_str()) + "\n";
}

}  // namespace pare::recipes
