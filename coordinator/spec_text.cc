#include "coordinator/spec_text.h"

#include "storage/rows.h"

namespace pare::coordinator {
namespace {

std::string TextOf(const std::map<std::string, StepKey>& inputs) {
  std::string text;
  for (const auto& [role, key] : inputs) ((((text += text.empty() ? "{" : ",") += Canonical(role)) += ":\"") += key.hex()) += '"';
  return text.empty() ? "{}" : text + "}";
}

}  // namespace

SharedText TextPool::Keep(std::string_view text) {
  auto known = texts_.find(text);
  if (known != texts_.end()) return *known;
  if (texts_.size() >= sweep_at_) {
    std::erase_if(texts_, [](const SharedText& held) { return held.use_count() == 1; });
    sweep_at_ = 2 * texts_.size() + 1'024;
  }
  return *texts_.insert(std::make_shared<const std::string>(text)).first;
}

SpecText::SpecText(const JsonText& spec, TextPool& pool) {
  std::string_view text = spec.text();
  if (text == storage::kNoSpec) return;
  std::string_view inputs = TypeNameOf(text) == "object" ? FieldOf(text, "inputs") : std::string_view();
  if (inputs.empty() || inputs != TextOf(InputsOf(spec))) {
    before_ = pool.Keep(text);
    return;
  }
  size_t begin = static_cast<size_t>(inputs.data() - text.data());
  before_ = pool.Keep(text.substr(0, begin));
  after_ = pool.Keep(text.substr(begin + inputs.size()));
}

JsonText SpecText::With(const std::map<std::string, StepKey>& inputs) const {
  if (none()) return JsonText::Of(storage::kNoSpec);
  return JsonText::Of(after_ == nullptr ? *before_ : *before_ + TextOf(inputs) + *after_);
}

std::string DeviceOf(const JsonText& spec) {
  std::string_view device = TypeNameOf(spec.text()) == "object" ? FieldOf(spec.text(), "device") : std::string_view();
  return TypeNameOf(device) == "string" ? std::string(device.substr(1, device.size() - 2)) : "cpu";
}

bool ReadsData(const JsonText& spec) { return TypeNameOf(spec.text()) == "object" && TypeNameOf(FieldOf(spec.text(), "data")) == "object"; }

std::map<std::string, StepKey> InputsOf(const JsonText& spec) {
  std::map<std::string, StepKey> inputs;
  std::string_view text = TypeNameOf(spec.text()) == "object" ? FieldOf(spec.text(), "inputs") : std::string_view();
  if (TypeNameOf(text) != "object") return inputs;
  for (const JsonField& field : FieldsOf(text)) {
    if (TypeNameOf(field.value) != "string") continue;
    auto key = StepKey::FromHex(field.value.substr(1, field.value.size() - 2));
    if (key.ok()) inputs[JsonText::Of('"' + std::string(field.name) + '"').Tree().get<std::string>()] = *key;
  }
  return inputs;
}

}  // namespace pare::coordinator
