// Result<T>: a value or an Error. The return type of every operation that can fail for a reason outside our own code.
//
// An error code exists only because a caller reacts to it; everything else is told by the message, which says what was
// tried, on which path or id, and the inner cause (for user input also what is allowed).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "common/check.h"

namespace pare {

enum class ErrorCode {
  kInvalid,      // bad usage, recipe or input file: the user must change it. Exit code 2
  kNotFound,     // no such job, step, model, blob. Exit code 3
  kUnreachable,  // no answer from the coordinator or a worker; safe to retry. Exit code 4
  kUnknown,      // the outcome is unknown: the request may or may not have taken effect
  kNoSpace,      // the disk is full: stop new work, keep what is acknowledged
  kCorrupt,      // stored bytes do not match their digest or format
  kConflict,     // held by another living process, or not possible in the present state
  kVersion,      // written or spoken by another version
  kDiverged,     // NaN or infinity in loss or weights: the same step would fail again
  kStopped,      // ended on request at a batch boundary; resumable
  kIo,           // any other failure of the operating system
  kInternal,     // a failure inside a library or our own code
};

// "invalid", "not_found", …: the name on the wire, in the store and in messages.
std::string_view ToString(ErrorCode code);
// kInternal for a name that is not known.
ErrorCode ErrorCodeFromString(std::string_view name);

struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  // The same error with "context: " in front of its message.
  Error With(std::string_view context) const;
};

// The system call `what` failed with `error_number` (errno). ENOSPC and EDQUOT become kNoSpace, ENOENT kNotFound.
Error SystemError(std::string_view what, int error_number);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : value_(std::move(error)) {}  // NOLINT: implicit by design

  bool ok() const { return std::holds_alternative<T>(value_); }
  explicit operator bool() const { return ok(); }

  // REQUIRES: ok().
  T& value() & { CHECK(ok()); return std::get<T>(value_); }
  const T& value() const& { CHECK(ok()); return std::get<T>(value_); }
  T&& value() && { CHECK(ok()); return std::get<T>(std::move(value_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // REQUIRES: !ok().
  const Error& error() const { CHECK(!ok()); return std::get<Error>(value_); }

 private:
  std::variant<T, Error> value_;
};

// The result of an operation that yields nothing: `return Ok();` or `return Error{…};`.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT: implicit by design

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  // REQUIRES: !ok().
  const Error& error() const { CHECK(!ok()); return *error_; }

 private:
  std::optional<Error> error_;
};
inline Status Ok() { return Status(); }

}  // namespace pare

#define PARE_CONCAT_INNER(a, b) a##b
#define PARE_CONCAT(a, b) PARE_CONCAT_INNER(a, b)

// TRY(expression): returns the error of a Status or Result from the calling function.
#define TRY(expression)                                   \
  do {                                                    \
    if (auto pare_try = (expression); !pare_try.ok()) {   \
      return pare_try.error();                            \
    }                                                     \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()): x = value, or returns the error.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_INNER(PARE_CONCAT(pare_result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                   \
  if (!result.ok()) return result.error();                      \
  declaration = std::move(result).value()
