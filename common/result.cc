#include "common/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace pare {
namespace {

constexpr std::array<std::pair<ErrorCode, std::string_view>, 12> kNames = {{
    {ErrorCode::kInvalid, "invalid"},
    {ErrorCode::kNotFound, "not_found"},
    {ErrorCode::kUnreachable, "unreachable"},
    {ErrorCode::kUnknown, "unknown"},
    {ErrorCode::kNoSpace, "no_space"},
    {ErrorCode::kCorrupt, "corrupt"},
    {ErrorCode::kConflict, "conflict"},
    {ErrorCode::kVersion, "version"},
    {ErrorCode::kDiverged, "diverged"},
    {ErrorCode::kStopped, "stopped"},
    {ErrorCode::kIo, "io"},
    {ErrorCode::kInternal, "internal"},
}};

}  // namespace

std::string_view ToString(ErrorCode code) {
  for (const auto& [known, name] : kNames) {
    if (known == code) return name;
  }
  return "internal";
}

ErrorCode ErrorCodeFromString(std::string_view name) {
  for (const auto& [code, known] : kNames) {
    if (known == name) return code;
  }
  return ErrorCode::kInternal;
}

Error Error::With(std::string_view context) const {
  return Error{code, std::string(context) + ": " + message};
}

Error SystemError(std::string_view what, int error_number) {
  ErrorCode code = ErrorCode::kIo;
  if (error_number == ENOSPC || error_number == EDQUOT) code = ErrorCode::kNoSpace;
  if (error_number == ENOENT) code = ErrorCode::kNotFound;
  return Error{code, std::string(what) + ": " + std::strerror(error_number)};
}

}  // namespace pare
