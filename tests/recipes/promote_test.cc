// The promotion rule: a table of candidates, and who is chosen.
#include "tests/recipes/fixture.h"

namespace pare::recipes {
namespace {

struct Candidate {
  std::string name;
  double accuracy = 0;
  int64_t bytes = 0;
};

struct Rule {
  double drop = 0.5;
  std::string minimize = "bytes";
  bool keep_best_effort = true;
};

Digest ArtifactOf(const std::string& name) { return pare::DigestOf(std::string_view("artifact of " + name)); }

Json Evaluation(const Candidate& c) {
  // Parameters and operations are ordered the other way round than bytes.
  return {{"accuracy", c.accuracy}, {"model", ArtifactOf(c.name).hex()},
          {"summary", {{"checkpoint_bytes", c.bytes}, {"parameters_nonzero", 1000 - c.bytes}, {"multiply_adds_nonzero", 2000 - c.bytes}}}};
}

// The decision over candidates, whose evaluations are known under made-up keys.
Json Decide(const Rule& rule, double baseline, const std::vector<Candidate>& candidates) {
  PlannedStep step;
  step.local = true;
  step.spec.kind = "promote";
  step.spec.params = {{"goal", {{"max_accuracy_drop", rule.drop}, {"minimize", rule.minimize}}}, {"as", "m"}, {"keep_best_effort", rule.keep_best_effort}};
  Outcomes outcomes;
  auto add = [&](const std::string& role, const Candidate& c) {
    StepKey key(pare::DigestOf(std::string_view(role)).bytes());
    step.spec.inputs[role] = key;
    outcomes[key] = {true, {}, Evaluation(c)};
  };
  add("baseline", {"baseline", baseline, 900});
  for (const Candidate& c : candidates) add("candidate/" + c.name, c);
  return RunLocalStep(step, ResolvedRecipe(), outcomes);
}

std::vector<std::string> Order(const Json& decision) {
  std::vector<std::string> names;
  for (const Json& entry : decision["ranking"]) names.push_back(entry["step"].get<std::string>());
  return names;
}

TEST(PromoteTest, TheSmallestThatMeetsTheGoalIsChosen) {
  Json d = Decide({}, 90.0, {{"a", 89.9, 500}, {"b", 89.6, 300}, {"c", 89.4, 100}});
  EXPECT_EQ(d["chosen"], "b");
  EXPECT_EQ(d["artifact"], ArtifactOf("b").hex());
  EXPECT_EQ(d["met_goal"], true);
  EXPECT_EQ(d["as"], "m");
  EXPECT_EQ(d["reason"], "smallest bytes among 2 of 3 candidates within 0.50 pp of the baseline (90.00 %)");
  EXPECT_EQ(Order(d), (std::vector<std::string>{"b", "a", "c"}));
  EXPECT_EQ(d["ranking"][2]["met_goal"], false);
  EXPECT_NEAR(d["ranking"][2]["drop"].get<double>(), 0.6, 1e-9);
  EXPECT_EQ(d["ranking"][2]["objective"], 100);
}

TEST(PromoteTest, TheObjectiveIsTheOneAskedFor) {
  std::vector<Candidate> candidates = {{"a", 90, 500}, {"b", 90, 300}};
  EXPECT_EQ(Decide({.minimize = "bytes"}, 90.0, candidates)["chosen"], "b");
  EXPECT_EQ(Decide({.minimize = "parameters"}, 90.0, candidates)["chosen"], "a");
  EXPECT_EQ(Decide({.minimize = "multiply_adds"}, 90.0, candidates)["chosen"], "a");
  EXPECT_EQ(Decide({.minimize = "parameters"}, 90.0, candidates)["ranking"][0]["objective"], 500);
  EXPECT_EQ(Decide({.minimize = "multiply_adds"}, 90.0, candidates)["ranking"][0]["objective"], 1500);
}

TEST(PromoteTest, EqualSizesAreDecidedByAccuracyThenByName) {
  EXPECT_EQ(Order(Decide({}, 90.0, {{"a", 89.7, 300}, {"b", 89.9, 300}, {"c", 89.8, 300}})), (std::vector<std::string>{"b", "c", "a"}));
  EXPECT_EQ(Order(Decide({}, 90.0, {{"z", 89.7, 300}, {"b", 89.7, 300}, {"m", 89.7, 300}})), (std::vector<std::string>{"b", "m", "z"}));
}

TEST(PromoteTest, ADropOfExactlyTheAllowedAmountMeetsTheGoal) {
  // 4480 and 4455 of 5000: their difference in floating point is a hair above one half.
  double baseline = 100.0 * 4480 / 5000, candidate = 100.0 * 4455 / 5000;
  EXPECT_EQ(Decide({}, baseline, {{"a", candidate, 300}})["met_goal"], true);
  EXPECT_EQ(Decide({}, baseline, {{"a", 100.0 * 4454 / 5000, 300}})["met_goal"], false);
  EXPECT_EQ(Decide({.drop = 0}, baseline, {{"a", baseline, 300}})["met_goal"], true);
}

TEST(PromoteTest, BetterThanTheBaselineMeetsEveryGoal) {
  Json d = Decide({.drop = 0}, 90.0, {{"a", 91.0, 300}});
  EXPECT_EQ(d["met_goal"], true);
  EXPECT_EQ(d["ranking"][0]["drop"], -1.0);
}

TEST(PromoteTest, AMissedGoalKeepsTheNearestCandidate) {
  Json d = Decide({}, 90.0, {{"small", 80.0, 10}, {"near", 89.4, 500}, {"middle", 88.0, 100}});
  EXPECT_EQ(d["chosen"], "near");
  EXPECT_EQ(d["met_goal"], false);
  EXPECT_EQ(d["reason"], "none of 3 candidates is within 0.50 pp of the baseline (90.00 %); this one misses it least (0.60 pp)");
  EXPECT_EQ(Order(d), (std::vector<std::string>{"near", "middle", "small"}));
}

TEST(PromoteTest, EquallyNearOnesAreDecidedBySizeThenByName) {
  EXPECT_EQ(Order(Decide({}, 90.0, {{"c", 89.0, 300}, {"a", 89.0, 400}, {"b", 89.0, 300}})), (std::vector<std::string>{"b", "c", "a"}));
}

TEST(PromoteTest, WithoutBestEffortAMissedGoalPromotesNothing) {
  Json d = Decide({.keep_best_effort = false}, 90.0, {{"a", 89.4, 500}});
  EXPECT_EQ(d["chosen"], nullptr);
  EXPECT_EQ(d["artifact"], nullptr);
  EXPECT_EQ(d["met_goal"], false);
  EXPECT_EQ(d["reason"], "none of 1 candidates is within 0.50 pp of the baseline (90.00 %), and keep_best_effort is off");
  EXPECT_EQ(Order(d), std::vector<std::string>{"a"}) << "the ranking is kept all the same";
  EXPECT_EQ(Decide({.keep_best_effort = false}, 90.0, {{"a", 89.5, 500}})["chosen"], "a");
}

TEST(PromoteTest, NoCandidatesPromoteNothing) {
  Json d = Decide({}, 90.0, {});
  EXPECT_EQ(d["chosen"], nullptr);
  EXPECT_EQ(d["reason"], "there are no candidates");
}

}  // namespace
}  // namespace pare::recipes
