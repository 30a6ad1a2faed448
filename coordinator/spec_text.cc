#include "coordinator/spec_text.h"

#include "storage/rows.h"

namespace pare::coordinator {

SharedText TextPool::Keep(std::string_view text) {
  auto known = texts_.find(text);
  if (known != texts_.end()) return *known;
  if (texts_.size() >= sweep_at_) {
    std::erase_if(texts_, [](const SharedText& held) { return held.use_count() == 1; });
    sweep_at_ = 2 * texts_.size() + 1'024;
  }
  return *texts_.insert(std::make_shared<const std::string>(text)).first;
}

SpecText::SpecText(const JsonText& spec, std::string_view value, const Inputs& inputs, TextPool& pool) {
  std::string_view text = spec.text();
  if (text == storage::kNoSpec) return;
  if (value.empty() || value != TextOfIds(inputs)) {
    before_ = pool.Keep(text);
    return;
  }
  size_t begin = static_cast<size_t>(value.data() - text.data());
  before_ = pool.Keep(text.substr(0, begin));
  after_ = pool.Keep(text.substr(begin + value.size()));
}

JsonText SpecText::With(const Inputs& inputs) const {
  if (none()) return JsonText::Of(storage::kNoSpec);
  return JsonText::Of(after_ == nullptr ? *before_ : *before_ + TextOfIds(inputs) + *after_);
}

bool ReadsData(const JsonText& spec) { return TypeNameOf(FieldOf(spec.text(), "data")) == "object"; }

SpecHead HeadOf(const JsonText& spec) {
  SpecHead head;
  if (TypeNameOf(spec.text()) != "object") return head;
  for (const JsonField& field : FieldsOf(spec.text())) {
    if (field.name == "device") head.device = StringOf(field.value).value_or("cpu");
    if (field.name != "inputs") continue;
    head.inputs_text = field.value;
    if (TypeNameOf(field.value) != "object") continue;
    for (const JsonField& input : FieldsOf(field.value)) {
      auto key = StepKey::FromHex(StringOf(input.value).value_or(""));
      if (key.ok()) head.inputs[StringOf('"' + std::string(input.name) + '"').value()] = *key;
    }
  }
  return head;
}

}  // namespace pare::coordinator
