// The load: jobs of real recipes, and workers that answer every grant at once with a result that was made before the clock
// starts. Nothing is trained; the coordinator cannot tell.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/client_fleet.h"
#include "data/dataset.h"
#include "recipes/planner.h"

namespace pare::bench {

data::DataInfo LoadData();
// Variants of twice prune, retrain and evaluate; jobs of different seeds share no step. 6 steps a variant and 3 before them.
std::string LoadRecipe(int64_t seed, int variants);
// A few steps, one after the other.
std::string TinyRecipe(int64_t seed);
recipes::PlannedSteps PlanOf(const std::string& yaml);

// Results of steps, ready to send: the artifacts lie in the store, as those of a real worker do.
class Answers {
 public:
  explicit Answers(std::string store) : store_(std::move(store)) {}
  void Add(const std::string& yaml);
  // StepFinished for a Grant's bytes.
  std::string To(std::string_view grant) const;
  size_t size() const { return parts_.size(); }

 private:
  // The message around the lease's epoch.
  struct Parts {
    std::string before, after;
  };
  void Store(const Digest& digest, const std::string& bytes);
  std::string store_;
  std::unordered_map<std::string, Parts> parts_;  // by step key, hexadecimal
};

std::string_view TypeOfBytes(std::string_view message);
struct LeaseText {
  std::string epoch, step;
};
LeaseText LeaseOf(std::string_view grant);

// Workers over real sockets. A grant is answered by `granted`, everything else goes to `other`.
class Workers {
 public:
  Workers(std::unique_ptr<ClientFleet> fleet, size_t count);
  size_t count() const { return count_; }
  void Send(size_t worker, std::string_view message) { fleet_->Send(worker, message); }
  // What has come; nothing after the patience: Die.
  std::vector<std::pair<size_t, std::string>> Receive();

 private:
  std::string Heartbeat(size_t worker) const;
  std::unique_ptr<ClientFleet> fleet_;
  size_t count_;
  double beaten_ = 0;
};

}  // namespace pare::bench
