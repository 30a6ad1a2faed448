#include "worker/runner/teacher.h"

#include <algorithm>
#include <cmath>

namespace pare::runner {
namespace {

constexpr uint32_t kNoRow = UINT32_MAX;

class CachedTeacher : public Teacher {
 public:
  CachedTeacher(Logits logits, std::vector<uint32_t> place, const DistillOptions& options)
      : logits_(std::move(logits)), place_(std::move(place)), options_(options) {}

  Status Teach(std::span<const uint32_t> rows, const engine::SampleSource&, engine::LossOptions& loss) override {
    auto classes = static_cast<size_t>(logits_.classes());
    batch_.resize(rows.size() * classes);
    for (size_t i = 0; i < rows.size(); ++i) {
      CHECK(rows[i] < place_.size() && place_[rows[i]] != kNoRow);
      logits_.Row(place_[rows[i]], std::span(batch_).subspan(i * classes, classes));
    }
    loss.teacher = batch_;
    loss.temperature = options_.temperature;
    loss.hardness = options_.hardness;
    return Ok();
  }

 private:
  Logits logits_;
  std::vector<uint32_t> place_;  // of a sample's logits, by its row in the split
  DistillOptions options_;
  std::vector<float> batch_;
};

class LoopTeacher : public Teacher {
 public:
  LoopTeacher(std::unique_ptr<engine::Network> network, std::string name, const DistillOptions& options)
      : network_(std::move(network)), name_(std::move(name)), options_(options) {}

  Status Teach(std::span<const uint32_t> rows, const engine::SampleSource& samples, engine::LossOptions& loss) override {
    batch_.resize(rows.size() * static_cast<size_t>(network_->classes()));
    std::vector<int64_t> sizes = network_->tap_sizes();
    taps_.resize(sizes.size());
    std::vector<std::span<float>> taps;
    loss.tap_targets.clear();
    for (size_t t = 0; t < sizes.size(); ++t) {
      taps_[t].resize(rows.size() * static_cast<size_t>(sizes[t]));
      taps.emplace_back(taps_[t]);
      loss.tap_targets.emplace_back(taps_[t]);
    }
    network_->Observe(samples, static_cast<int64_t>(rows.size()), batch_, taps);
    TRY(CheckFinite(rows, batch_));
    for (const std::vector<float>& tap : taps_) TRY(CheckFinite(rows, tap));
    loss.teacher = batch_;
    loss.temperature = options_.temperature;
    loss.hardness = options_.hardness;
    loss.tap_weight = options_.match_weight;
    return Ok();
  }

 private:
  Status CheckFinite(std::span<const uint32_t> rows, const std::vector<float>& values) const {
    auto bad = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
    if (bad == values.end()) return Ok();
    return TeacherNotFinite(name_, rows[static_cast<size_t>(bad - values.begin()) / (values.size() / rows.size())]);
  }

  std::unique_ptr<engine::Network> network_;
  std::string name_;
  DistillOptions options_;
  std::vector<float> batch_;
  std::vector<std::vector<float>> taps_;
};

}  // namespace

Result<std::unique_ptr<Teacher>> NewCachedTeacher(Logits logits, std::span<const uint32_t> rows, int64_t classes,
                                                  const DistillOptions& options) {
  if (logits.samples() != static_cast<int64_t>(rows.size()) || logits.classes() != classes) {
    return Error{ErrorCode::kInvalid, "the teacher's logits are for " + std::to_string(logits.samples()) + " samples and " +
                                          std::to_string(logits.classes()) + " classes, the student trains on " +
                                          std::to_string(rows.size()) + " samples and has " + std::to_string(classes) + " classes"};
  }
  std::vector<uint32_t> place(rows.empty() ? 0 : *std::max_element(rows.begin(), rows.end()) + size_t{1}, kNoRow);
  for (size_t i = 0; i < rows.size(); ++i) place[rows[i]] = static_cast<uint32_t>(i);
  return std::unique_ptr<Teacher>(std::make_unique<CachedTeacher>(std::move(logits), std::move(place), options));
}

std::unique_ptr<Teacher> NewLoopTeacher(std::unique_ptr<engine::Network> network, std::string name, const DistillOptions& options) {
  return std::make_unique<LoopTeacher>(std::move(network), std::move(name), options);
}

Error TeacherNotFinite(const std::string& teacher, int64_t sample) {
  return {ErrorCode::kDiverged, "teacher " + teacher + " answers training sample " + std::to_string(sample) +
                                    " with something that is not a number: its weights or what it was trained on are damaged; "
                                    "evaluate it, then train it again with a lower learning rate, or name another teacher"};
}

}  // namespace pare::runner
