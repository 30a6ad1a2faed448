// JSON: the one representation on the wire, in step keys, manifests and HTTP.
//
// Json objects keep their keys sorted, so Canonical() is a function of the value: no spaces, keys in byte order,
// numbers in the shortest form that reads back to the same value, UTF-8. Two equal values have equal bytes and hence
// equal digests. Doubles must be finite (NaN and infinity have no JSON form): callers check first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/digest.h"
#include "common/result.h"

namespace pare {

using Json = nlohmann::json;

inline constexpr size_t kMaxJsonBytes = 64 << 20;
inline constexpr int kMaxJsonDepth = 64;

std::string Canonical(const Json& value);
// kInvalid with the byte position for text that is not JSON, is larger than kMaxJsonBytes or nests deeper than
// kMaxJsonDepth. `what` names the text in the message.
Result<Json> ParseJson(std::string_view text, std::string_view what);

// Typed access to a field of an object sent by another process or read from disk: kInvalid says which field of what is
// missing or of the wrong type.
Result<std::string> StringField(const Json& object, std::string_view field);
Result<int64_t> IntField(const Json& object, std::string_view field);
Result<double> NumberField(const Json& object, std::string_view field);
Result<bool> BoolField(const Json& object, std::string_view field);
// The field as a 64-digit id.
Result<Digest> DigestField(const Json& object, std::string_view field);
Result<StepKey> StepKeyField(const Json& object, std::string_view field);

}  // namespace pare
