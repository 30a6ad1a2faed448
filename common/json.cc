#include "common/json.h"

#include <utility>

namespace pare {
namespace {

Error BadField(std::string_view field, std::string_view expected, const Json& object) {
  std::string found = "missing";
  if (auto it = object.find(field); object.is_object() && it != object.end()) found = it->type_name();
  return Error{ErrorCode::kInvalid, "field '" + std::string(field) + "': expected " +
                                        std::string(expected) + ", found " + found};
}

const Json* Find(const Json& object, std::string_view field) {
  if (!object.is_object()) return nullptr;
  auto it = object.find(field);
  return it == object.end() ? nullptr : &*it;
}

// Looked at before parsing, so that the recursive destructor of a deep value cannot overflow the stack. (A callback of the
// parser could count too, but makes it half as fast.)
bool NestsTooDeep(std::string_view text) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        for (++i; i < text.size() && text[i] != '"'; ++i) {
          if (text[i] == '\\') ++i;
        }
        break;
      case '[':
      case '{':
        if (++depth > kMaxJsonDepth) return true;
        break;
      case ']':
      case '}':
        --depth;
        break;
      default:
        break;
    }
  }
  return false;
}

}  // namespace

std::string Canonical(const Json& value) {
  // Bytes that are not UTF-8 (a path, say) must not throw; they are replaced, deterministically.
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Json> ParseJson(std::string_view text, std::string_view what) {
  if (text.size() > kMaxJsonBytes) {
    return Error{ErrorCode::kInvalid, std::string(what) + ": " + std::to_string(text.size()) +
                                          " bytes of JSON, at most " +
                                          std::to_string(kMaxJsonBytes) + " are accepted"};
  }
  if (NestsTooDeep(text)) {
    return Error{ErrorCode::kInvalid, std::string(what) + ": not valid JSON here: nesting deeper than " + std::to_string(kMaxJsonDepth) + " levels"};
  }
  try {
    return Json::parse(text);
  } catch (const std::exception& e) {
    return Error{ErrorCode::kInvalid, std::string(what) + ": not valid JSON: " + e.what()};
  }
}

Result<std::string> StringField(const Json& object, std::string_view field) {
  const Json* value = Find(object, field);
  if (value == nullptr || !value->is_string()) return BadField(field, "a string", object);
  return value->get<std::string>();
}

Result<int64_t> IntField(const Json& object, std::string_view field) {
  const Json* value = Find(object, field);
  if (value == nullptr || !value->is_number_integer()) return BadField(field, "an integer", object);
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}) {
    return BadField(field, "an integer below 2^63", object);
  }
  return value->get<int64_t>();
}

Result<double> NumberField(const Json& object, std::string_view field) {
  const Json* value = Find(object, field);
  if (value == nullptr || !value->is_number()) return BadField(field, "a number", object);
  return value->get<double>();
}

Result<bool> BoolField(const Json& object, std::string_view field) {
  const Json* value = Find(object, field);
  if (value == nullptr || !value->is_boolean()) return BadField(field, "true or false", object);
  return value->get<bool>();
}

Result<Digest> DigestField(const Json& object, std::string_view field) {
  ASSIGN_OR_RETURN(std::string hex, StringField(object, field));
  return Digest::FromHex(hex);
}

Result<StepKey> StepKeyField(const Json& object, std::string_view field) {
  ASSIGN_OR_RETURN(std::string hex, StringField(object, field));
  return StepKey::FromHex(hex);
}

}  // namespace pare
