// JsonText: a JSON value as its text. Most of what holds a value only passes it on (a step's spec, a manifest, a metric
// point), and a tree takes ten times the memory of its text. Copies share the text; it never changes.
//
// Text that Pare writes is Canonical(); text of another sender is valid JSON in whatever form it came.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace pare {

class JsonText {
 public:
  JsonText() = default;           // null
  JsonText(const Json& value);    // NOLINT(google-explicit-constructor): a value by another name
  JsonText(Json::initializer_list_t fields) : JsonText(Json(fields)) {}  // as Json takes them: {{"epoch", 3}, {"batch", 0}}
  // REQUIRES: `text` is valid JSON (CheckJson).
  static JsonText Of(std::string text);
  static JsonText Of(std::shared_ptr<const std::string> text);
  // kInvalid as ParseJson.
  static Result<JsonText> Read(std::string_view text, std::string_view what);

  const std::string& text() const;
  Json Tree() const;
  bool is_null() const { return text_ == nullptr; }
  // Of the text: of canonical texts, equality of the values.
  friend bool operator==(const JsonText& a, const JsonText& b) { return a.text_ == b.text_ || a.text() == b.text(); }

 private:
  std::shared_ptr<const std::string> text_;  // null: "null"
};

// Whether ParseJson would read the text, in a fraction of the time: builds no tree. kInvalid as ParseJson.
Status CheckJson(std::string_view text, std::string_view what);

// What an object or a list consists of, as pieces of its text, without a tree. REQUIRES: CheckJson has accepted the text, and it
// is an object (a list). Names as they are written: a name with an escape keeps its backslash.
struct JsonField {
  std::string_view name, value;
};
std::vector<JsonField> FieldsOf(std::string_view object);
std::vector<std::string_view> ElementsOf(std::string_view list);
// Every string in a value of any kind, names of fields too, without its quotes and as it is written.
std::vector<std::string_view> StringsOf(std::string_view value);
// The field's value; "" if there is none, also in what is no object.
std::string_view FieldOf(std::string_view value, std::string_view name);
// {"role":"<64 digits>", …}, canonical, of a map of ids in the order of their roles.
template <typename Map>
std::string TextOfIds(const Map& ids) {
  std::string text;
  for (const auto& [role, id] : ids) ((((text += text.empty() ? "{" : ",") += Canonical(role)) += ":\"") += id.hex()) += '"';
  return text.empty() ? "{}" : text + "}";
}
// What the value is, without quotes and escapes; nothing for a value of another kind (for an integer: or one outside int64).
std::optional<std::string> StringOf(std::string_view value);
std::optional<int64_t> IntegerOf(std::string_view value);
std::optional<double> NumberOf(std::string_view value);
// "object", "array", "string", "number", "boolean" or "null", of valid text.
std::string_view TypeNameOf(std::string_view value);

}  // namespace pare
