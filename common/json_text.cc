#include "common/json_text.h"

#include <simdjson.h>

#include <array>
#include <charconv>
#include <utility>

#include "common/check.h"

namespace pare {
namespace {

// A table: std::string_view::find_first_of searches its argument anew for every character.
class CharacterSet {
 public:
  constexpr explicit CharacterSet(std::string_view members) {
    for (char c : members) in_[static_cast<unsigned char>(c)] = true;
  }
  constexpr bool operator[](char c) const { return in_[static_cast<unsigned char>(c)]; }

 private:
  std::array<bool, 256> in_{};
};
constexpr CharacterSet kSpace(" \n\t\r"), kAfterScalar(",]} \n\t\r"), kMarks("\"{}[]");

// Of the string at its opening quote, both quotes included. A quote behind an odd number of backslashes is part of it.
size_t SizeOfString(std::string_view text) {
  for (size_t quote = text.find('"', 1);; quote = text.find('"', quote + 1)) {
    CHECK(quote != std::string_view::npos);
    size_t slashes = 0;
    while (text[quote - 1 - slashes] == '\\') ++slashes;
    if (slashes % 2 == 0) return quote + 1;
  }
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
  void SkipSpace() {
    while (!rest_.empty() && kSpace[rest_.front()]) rest_.remove_prefix(1);
  }
  size_t SizeOfValue() const {
    if (Peek() == '"') return SizeOfString(rest_);
    size_t at = 0;
    if (Peek() != '{' && Peek() != '[') {
      while (at < rest_.size() && !kAfterScalar[rest_[at]]) ++at;
      return at;
    }
    for (int depth = 0;; ++at) {
      while (at < rest_.size() && !kMarks[rest_[at]]) ++at;
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

// Calls `visit` with one field after the other until it returns false.
template <typename Visit>
void EachField(std::string_view object, const Visit& visit) {
  Cursor cursor(object);
  CHECK(cursor.Peek() == '{');
  for (cursor.Pass(); cursor.Peek() != '}';) {
    std::string_view name = cursor.Value();
    cursor.Pass();
    if (!visit(JsonField{name.substr(1, name.size() - 2), cursor.Value()})) return;
    if (cursor.Peek() == ',') cursor.Pass();
  }
}

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
  EachField(object, [&fields](const JsonField& field) {
    fields.push_back(field);
    return true;
  });
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
  std::string_view found;
  if (TypeNameOf(value) != "object") return found;
  EachField(value, [&](const JsonField& field) {
    if (field.name != name) return true;
    found = field.value;
    return false;
  });
  return found;
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

std::optional<double> NumberOf(std::string_view value) {
  double number = 0;
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
