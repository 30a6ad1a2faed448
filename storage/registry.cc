#include "storage/registry.h"

#include <charconv>
#include <utility>

namespace pare::storage {
namespace {

constexpr std::string_view kDecision = "decision of job ", kHand = "by hand: step ", kOfJob = " of job ", kReason = ": ";
constexpr std::string_view kPromoted = "promoted ", kPromotedByHand = "promoted by hand", kAs = " as ", kVersion = " version ";

// Takes `start` off the text, if it begins with that.
bool Skip(std::string_view& text, std::string_view start) {
  if (!text.starts_with(start)) return false;
  text.remove_prefix(start.size());
  return true;
}

// Takes the text up to `mark` off, and the mark. Names of jobs, steps and models have no spaces, so the first mark is the right one.
std::optional<std::string> TakeUntil(std::string_view& text, std::string_view mark) {
  size_t at = text.find(mark);
  if (at == std::string_view::npos || at == 0) return std::nullopt;
  std::string taken(text.substr(0, at));
  text.remove_prefix(at + mark.size());
  return taken;
}

std::optional<int64_t> TakeNumber(std::string_view& text) {
  int64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number <= 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

Json AccuracyOf(const Json& results) { return results.is_object() ? results.value("accuracy", Json()) : Json(); }

}  // namespace

std::string HistoryText(const VersionOrigin& origin) {
  if (origin.by_hand) return std::string(kHand) + origin.step + std::string(kOfJob) + origin.job;
  return std::string(kDecision) + origin.job + std::string(kReason) + origin.reason;
}

std::optional<VersionOrigin> OriginOf(std::string_view text) {
  if (Skip(text, kDecision)) {
    auto job = TakeUntil(text, kReason);
    if (!job) return std::nullopt;
    return VersionOrigin{.job = *job, .reason = std::string(text)};
  }
  if (!Skip(text, kHand)) return std::nullopt;
  auto step = TakeUntil(text, kOfJob);
  if (!step || text.empty()) return std::nullopt;
  return VersionOrigin{.job = std::string(text), .step = *step, .by_hand = true};
}

std::string EventText(const PromotedVersion& promoted) {
  const VersionOrigin& origin = promoted.origin;
  std::string text = (origin.by_hand ? std::string(kPromotedByHand) : std::string(kPromoted) + origin.step) + std::string(kAs) + promoted.model +
                     std::string(kVersion) + std::to_string(promoted.version);
  return origin.by_hand ? text : text + std::string(kReason) + origin.reason;
}

std::optional<PromotedVersion> PromotedOf(const EventRow& event) {
  std::string_view text = event.text;
  VersionOrigin origin{.job = event.job, .step = event.step};
  origin.by_hand = text.starts_with(std::string(kPromotedByHand) + std::string(kAs));
  if (!Skip(text, origin.by_hand ? kPromotedByHand : kPromoted)) return std::nullopt;
  auto before = origin.by_hand ? std::optional<std::string>(event.step) : TakeUntil(text, kAs);
  if (!before || before->empty() || (origin.by_hand && !Skip(text, kAs))) return std::nullopt;
  origin.step = *before;
  auto model = TakeUntil(text, kVersion);
  auto version = model ? TakeNumber(text) : std::nullopt;
  if (!version || (origin.by_hand ? !text.empty() : !Skip(text, kReason))) return std::nullopt;
  origin.reason = std::string(text);
  return PromotedVersion{*model, *version, std::move(origin)};
}

Json EvidenceOf(const VersionBasis& basis) {
  return {{"job", basis.job},
          {"job_name", basis.job_name},
          {"validation_accuracy", AccuracyOf(basis.validation)},
          {"test_accuracy", AccuracyOf(basis.test)},
          {"summary", basis.summary}};
}

Json LineageOf(const StepKey& last, const FindLineageStep& find, size_t max_steps) {
  Json lineage = Json::array();
  for (std::optional<StepKey> next = last; next && lineage.size() < max_steps;) {
    std::optional<LineageStep> step = find(*next);
    if (!step) break;
    lineage.push_back({{"kind", step->kind}, {"step", step->key.hex()}, {"artifact", step->artifact.is_none() ? "" : step->artifact.hex()}});
    next = step->model;
  }
  return lineage;
}

}  // namespace pare::storage
