#include "common/json_text.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/check.h"

namespace pare {
namespace {

// Of the string at its opening quote, both quotes included.
size_t SizeOfString(std::string_view text) {
  size_t at = 1;
  while (text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return at + 1;
}

// Text that is known to be valid, from a point in it.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) { SkipSpace(); }

  char Peek() const { return rest_.empty() ? '\0' : rest_.front(); }
  void Pass() {
    rest_.remove_prefix(1);
    SkipSpace();
  }
  // One value, and what separates it from the next.
  std::string_view Value() {
    size_t size = SizeOfValue();
    std::string_view value = rest_.substr(0, size);
    rest_.remove_prefix(size);
    SkipSpace();
    return value;
  }

 private:
  void SkipSpace() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n\t\r"), rest_.size())); }
  size_t SizeOfValue() const {
    if (Peek() == '"') return SizeOfString(rest_);
    if (Peek() != '{' && Peek() != '[') return std::min(rest_.find_first_of(",]} \n\t\r"), rest_.size());
    int depth = 0;
    for (size_t at = 0;; ++at) {
      CHECK(at < rest_.size());
      switch (rest_[at]) {
        case '"':
          at += SizeOfString(rest_.substr(at)) - 1;
          break;
        case '{':
        case '[':
          ++depth;
          break;
        case '}':
        case ']':
          if (--depth == 0) return at + 1;
          break;
        default:
          break;
      }
    }
  }

  std::string_view rest_;
};

const std::string& NullText() {
  static const std::string text = "null";
  return text;
}

}  // namespace

JsonText::JsonText(const Json& value) : JsonText(Of(Canonical(value))) {}

JsonText JsonText::Of(std::string text) {
  JsonText json;
  if (text != NullText()) json.text_ = std::make_shared<const std::string>(std::move(text));
  return json;
}

JsonText JsonText::Of(std::shared_ptr<const std::string> text) {
  JsonText json;
  if (*text != NullText()) json.text_ = std::move(text);
  return json;
}

Result<JsonText> JsonText::Read(std::string_view text, std::string_view what) {
  TRY(CheckJson(text, what));
  return Of(std::string(text));
}

const std::string& JsonText::text() const { return text_ == nullptr ? NullText() : *text_; }

Json JsonText::Tree() const {
  auto json = ParseJson(text(), "JSON text");
  CHECK(json.ok());
  return *std::move(json);
}

Status CheckJson(std::string_view text, std::string_view what) {
  // The parser keeps its buffers from text to text; what a huge one needed is given back.
  constexpr size_t kLeastKept = 1 << 12, kMostKept = 1 << 20;
  thread_local simdjson::dom::parser parser(kMaxJsonBytes);
  bool ready = parser.max_depth() == kMaxJsonDepth || parser.allocate(kLeastKept, kMaxJsonDepth) == simdjson::SUCCESS;
  bool valid = ready && text.size() <= kMaxJsonBytes && parser.parse(text.data(), text.size()).error() == simdjson::SUCCESS;
  if (parser.capacity() > kMostKept) parser = simdjson::dom::parser(kMaxJsonBytes);
  if (valid) return Ok();
  // The words for what is wrong, and the last word on rare forms (an integer of more than 64 bits).
  auto tree = ParseJson(text, what);
  if (tree.ok() && text.find('\0') != std::string_view::npos) return Error{ErrorCode::kInvalid, std::string(what) + ": not valid JSON: a byte 0"};
  return tree.ok() ? Ok() : Status(tree.error());
}

std::vector<JsonField> FieldsOf(std::string_view object) {
  std::vector<JsonField> fields;
  Cursor cursor(object);
  CHECK(cursor.Peek() == '{');
  for (cursor.Pass(); cursor.Peek() != '}';) {
    std::string_view name = cursor.Value();
    cursor.Pass();
    fields.push_back({name.substr(1, name.size() - 2), cursor.Value()});
    if (cursor.Peek() == ',') cursor.Pass();
  }
  return fields;
}

std::vector<std::string_view> ElementsOf(std::string_view list) {
  std::vector<std::string_view> elements;
  Cursor cursor(list);
  CHECK(cursor.Peek() == '[');
  for (cursor.Pass(); cursor.Peek() != ']';) {
    elements.push_back(cursor.Value());
    if (cursor.Peek() == ',') cursor.Pass();
  }
  return elements;
}

std::vector<std::string_view> StringsOf(std::string_view value) {
  std::vector<std::string_view> strings;
  for (size_t begin = value.find('"'); begin != std::string_view::npos; begin = value.find('"', begin)) {
    size_t size = SizeOfString(value.substr(begin));
    strings.push_back(value.substr(begin + 1, size - 2));
    begin += size;
  }
  return strings;
}

std::string_view FieldOf(std::string_view value, std::string_view name) {
  if (TypeNameOf(value) != "object") return {};
  for (const JsonField& field : FieldsOf(value)) {
    if (field.name == name) return field.value;
  }
  return {};
}

std::optional<std::string> StringOf(std::string_view value) {
  if (TypeNameOf(value) != "string") return std::nullopt;
  if (value.find('\\') != std::string_view::npos) return JsonText::Of(std::string(value)).Tree().get<std::string>();
  return std::string(value.substr(1, value.size() - 2));
}

std::optional<int64_t> IntegerOf(std::string_view value) {
  int64_t number = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  return error == std::errc() && end == value.data() + value.size() ? std::optional(number) : std::nullopt;
}

std::string_view TypeNameOf(std::string_view value) {
  size_t begin = value.find_first_not_of(" \n\t\r");
  switch (begin == std::string_view::npos ? '\0' : value[begin]) {
    case '{':
      return "object";
    case '[':
      return "array";
    case '"':
      return "string";
    case 't':
    case 'f':
      return "boolean";
    case 'n':
      return "null";
    default:
      return "number";
  }
}

}  // namespace pare
