// Texts that many steps share and that are held once: kinds, devices, and the specs of steps without their inputs, which the
// steps keep anyway (what is left is the same text for thousands of them). Belongs to the loop thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "common/digest.h"
#include "common/flat.h"
#include "common/json_text.h"

namespace pare::coordinator {

using Inputs = FlatMap<std::string, StepKey>;  // by role
using SharedText = std::shared_ptr<const std::string>;

// Texts that are held once, however many ask for them.
class TextPool {
 public:
  SharedText Keep(std::string_view text);

 private:
  struct ByText {
    using is_transparent = void;
    static std::string_view Of(std::string_view text) { return text; }
    static std::string_view Of(const SharedText& text) { return *text; }
    size_t operator()(const auto& text) const { return std::hash<std::string_view>()(Of(text)); }
    bool operator()(const auto& a, const auto& b) const { return Of(a) == Of(b); }
  };
  std::unordered_set<SharedText, ByText, ByText> texts_;  // nobody walks it
  size_t sweep_at_ = 1'024;  // so many texts: those that nobody else holds go
};

class SpecText {
 public:
  SpecText() = default;  // storage::kNoSpec
  // The canonical text of a recipes::StepSpec. Any other text is kept too, though not in pieces. `inputs`: as HeadOf(spec) has them,
  // and where in the text it found them.
  SpecText(const JsonText& spec, std::string_view inputs_text, const Inputs& inputs, TextPool& pool);
  SpecText(const JsonText& spec, const Inputs& inputs, TextPool& pool) : SpecText(spec, FieldOf(spec.text(), "inputs"), inputs, pool) {}

  // The spec that it was made of, with the same inputs.
  JsonText With(const Inputs& inputs) const;
  bool none() const { return before_ == nullptr; }

 private:
  SharedText before_, after_;  // what surrounds the value of "inputs"; all of it before, if that is not canonical
};

// Of the fields of the same names.
struct SpecHead {
  std::string device = "cpu";
  Inputs inputs;  // what is no step key there is left out
  std::string_view inputs_text;  // in the spec's own text; empty: it has none
};
SpecHead HeadOf(const JsonText& spec);
bool ReadsData(const JsonText& spec);

}  // namespace pare::coordinator
