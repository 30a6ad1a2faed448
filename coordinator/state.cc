#include "coordinator/state.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "common/check.h"
#include "coordinator/config.h"

namespace pare::coordinator {
namespace {

constexpr std::array<std::string_view, 5> kJobStates = {"running", "paused", "done", "failed", "cancelled"};
constexpr std::array<std::string_view, 6> kStepStates = {"waiting", "ready", "running", "done", "failed", "cancelled"};

template <typename State, size_t n>
std::optional<State> StateOf(const std::array<std::string_view, n>& names, std::string_view text) {
  for (size_t i = 0; i < n; ++i) {
    if (names[i] == text) return static_cast<State>(i);
  }
  return std::nullopt;
}

}  // namespace

std::string_view ToString(JobState state) { return kJobStates[static_cast<size_t>(state)]; }
std::string_view ToString(StepState state) { return kStepStates[static_cast<size_t>(state)]; }
std::optional<JobState> JobStateOf(std::string_view text) { return StateOf<JobState>(kJobStates, text); }
std::optional<StepState> StepStateOf(std::string_view text) { return StateOf<StepState>(kStepStates, text); }

const JobStep* Job::Find(const StepKey& key) const {
  auto first = std::lower_bound(by_key.begin(), by_key.end(), key, [this](uint32_t at, const StepKey& k) { return steps[at].key < k; });
  return first == by_key.end() || steps[*first].key != key ? nullptr : &steps[*first];
}

const JobStep* Job::Find(const std::string& step_name) const {
  auto found = std::lower_bound(by_name.begin(), by_name.end(), step_name, [this](uint32_t at, const std::string& n) { return steps[at].name < n; });
  return found == by_name.end() || steps[*found].name != step_name ? nullptr : &steps[*found];
}

JobStep& Job::PutStep(JobStep step) {
  const JobStep* known = Find(step.name);
  size_t at = known == nullptr ? steps.size() : static_cast<size_t>(known - steps.data());
  auto names_before = [this](uint32_t a, uint32_t b) { return steps[a].name < steps[b].name; };
  auto keys_before = [this](uint32_t a, uint32_t b) { return std::tie(steps[a].key, a) < std::tie(steps[b].key, b); };
  auto place = static_cast<uint32_t>(at);
  if (known == nullptr) {
    steps.push_back(std::move(step));
    by_name.insert(std::upper_bound(by_name.begin(), by_name.end(), place, names_before), place);
  } else {
    by_key.erase(std::lower_bound(by_key.begin(), by_key.end(), place, keys_before));
    steps[at] = std::move(step);
  }
  by_key.insert(std::upper_bound(by_key.begin(), by_key.end(), place, keys_before), place);
  return steps[at];
}

void Job::Reserve(size_t size) {
  steps.reserve(size);
  by_name.reserve(size);
  by_key.reserve(size);
}

const storage::VersionRow* Model::Find(int64_t version) const {
  for (const storage::VersionRow& row : versions) {
    if (row.version == version) return &row;
  }
  return nullptr;
}

const storage::VersionRow* Model::Alias(const std::string& alias) const {
  auto it = aliases.find(alias);
  return it == aliases.end() ? nullptr : Find(it->second);
}

Result<const Job*> State::FindJob(std::string_view text) const {
  if (jobs.empty()) return Error{ErrorCode::kNotFound, "there is no job '" + std::string(text) + "': the store has no jobs"};
  if (text == "last") {
    const Job* last = nullptr;
    for (const auto& [id, job] : jobs) {
      if (last == nullptr || job.number > last->number) last = &job;
    }
    return last;
  }
  const Job* found = nullptr;
  for (auto it = jobs.lower_bound(std::string(text)); it != jobs.end() && it->first.starts_with(text); ++it) {
    if (text.empty()) break;
    if (it->first == text) return &it->second;
    if (found != nullptr) {
      return Error{ErrorCode::kInvalid, "'" + std::string(text) + "' fits several jobs (" + found->id + ", " + it->first + ", …): write more digits"};
    }
    found = &it->second;
  }
  if (found == nullptr) {
    return Error{ErrorCode::kNotFound, "there is no job '" + std::string(text) + "': a job is named by its id, a unique prefix of it, or 'last'"};
  }
  return found;
}

Member* Hold::Find(const std::string& name) {
  auto member = std::find_if(members.begin(), members.end(), [&](const Member& m) { return m.worker == name; });
  return member == members.end() ? nullptr : &*member;
}

const Member* Hold::Find(const std::string& name) const { return const_cast<Hold*>(this)->Find(name); }

bool Hold::prepared() const {
  return std::all_of(members.begin(), members.end(), [](const Member& m) { return m.prepared; });
}

void ReadyQueue::Insert(size_t share, const QueueRank& rank) {
  if (levels[rank.minus_priority][share].insert(rank).second) ++size;
}

void ReadyQueue::Erase(size_t share, const QueueRank& rank) {
  auto level = levels.find(rank.minus_priority);
  if (level == levels.end()) return;
  auto steps = level->second.find(share);
  if (steps == level->second.end()) return;
  size -= steps->second.erase(rank);
  if (steps->second.empty()) level->second.erase(steps);
  if (level->second.empty()) levels.erase(level);
}

const QueueRank& ReadyQueue::Next(const std::vector<Share>& shares) const {
  CHECK(!empty());
  const auto& users = levels.begin()->second;
  auto standing = [&](const auto& user) { return std::tuple(shares[user.first].held, shares[user.first].used, *user.second.begin()); };
  auto next = std::min_element(users.begin(), users.end(), [&](const auto& a, const auto& b) { return standing(a) < standing(b); });
  return *next->second.begin();
}

const Step* State::FindStep(const StepKey& key) const {
  auto it = steps.find(key);
  return it == steps.end() ? nullptr : &it->second;
}

bool State::AwaitsPlan(const Step& step) const {
  return std::any_of(step.wanted_by.begin(), step.wanted_by.end(), [this](const std::string& id) {
    const Job& job = jobs.at(id);
    return job.state == JobState::kRunning && !job.planned;
  });
}

const ArtifactRecord* State::ArtifactOf(const StepKey& key) const {
  const Step* step = FindStep(key);
  if (step == nullptr || step->artifact.is_none()) return nullptr;
  auto it = artifacts.find(step->artifact);
  return it == artifacts.end() ? nullptr : &it->second;
}

std::vector<std::string> WorkersOf(const storage::AttemptRow& row) {
  std::vector<std::string> names;
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
    end = row.worker.find('\n', begin);
    names.push_back(row.worker.substr(begin, end == std::string::npos ? end : end - begin));
  }
  return names;
}

std::string LinesOf(const std::vector<std::string>& workers) {
  std::string lines;
  for (const std::string& name : workers) lines += (lines.empty() ? "" : "\n") + name;
  return lines;
}

std::string NamesOf(const std::vector<std::string>& workers) {
  if (workers.size() == 1) return workers[0];
  return workers[0] + " and " + (workers.size() == 2 ? workers[1] : std::to_string(workers.size() - 1) + " others");
}

std::string ClipText(std::string text) {
  if (text.size() <= kMaxMessageChars) return text;
  size_t end = kMaxMessageChars;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end) + " …";
}

storage::JobRow RowOf(const Job& job) {
  return {.id = job.id,
          .name = job.name,
          .user = job.user,
          .state = std::string(ToString(job.state)),
          .created_ms = job.created_ms,
          .finished_ms = job.finished_ms,
          .recipe_text = job.recipe_text.Text(),
          .recipe_digest = job.recipe_digest,
          .resolved = JsonText::Of(job.resolved.Text()),
          .message = job.message,
          .priority = job.priority};
}

storage::StepRow RowOf(const Step& step) {
  return {.key = step.key,
          .kind = *step.kind,
          .spec = step.spec.With(step.inputs),
          .state = std::string(ToString(step.state)),
          .attempts = step.failures,
          .artifact = step.artifact,
          .error_class = step.problem.OrDefault().error_class,
          .message = step.problem.OrDefault().message};
}

}  // namespace pare::coordinator
