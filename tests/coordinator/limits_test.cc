// Every limit refuses with a reason that names it.
#include <gmock/gmock.h>

#include "tests/coordinator/harness.h"
#include "tests/coordinator/service_site.h"

namespace pare::coordinator {
namespace {

using testing::HasSubstr;

const std::vector<PlanLine> kOne = {{.name = "a", .candidate = true}};

TEST(LimitsTest, AFullQueueOfJobsRefusesTheNextOne) {
  Harness h;
  for (size_t i = 0; i < kMaxUnfinishedJobs; ++i) {
    h.Do(Submit{.caller = {"client", 1}, .recipe = TestRecipe("job " + std::to_string(i), kOne)});
  }
  Reply refused = h.SubmitPlan("one too many", kOne);
  EXPECT_FALSE(refused.ok);
  EXPECT_EQ(refused.code, "conflict");
  EXPECT_THAT(refused.message, HasSubstr("the queue is full: 1000 unfinished jobs"));
  EXPECT_TRUE(h.SubmitPlan("job 7", kOne).result["resumed"]);  // one that is there already
  h.Change(ChangeJob::What::kCancel);
  EXPECT_TRUE(h.SubmitPlan("one too many", kOne).ok);
}

TEST(LimitsTest, AFullQueueOfStepsRefusesTheNextJob) {
  Harness h;
  h.SubmitPlan("first", kOne);
  Submit large{.caller = {"client", 2}, .recipe = TestRecipe("large", kOne)};
  large.steps = kMaxQueuedSteps;
  h.Do(large);
  const Reply& refused = *LastSent<Reply>(h.sent, "client");
  EXPECT_EQ(refused.code, "conflict");
  EXPECT_THAT(refused.message, HasSubstr("would have 500001 steps, at most 500000"));
  large.steps = kMaxQueuedSteps - 1;
  h.Do(large);
  EXPECT_TRUE(LastSent<Reply>(h.sent, "client")->ok);
}

TEST(LimitsTest, ARecipeOfTooManyStepsIsRefusedBeforeAnythingExists) {
  ServiceSite site;
  std::string yaml = kSmallRecipe, variants;
  for (char name = 'a'; name <= 'd'; ++name) {  // 4,800 steps each, which one variant may have, and 2,400 evaluations
    variants += std::string("  ") + name + ":\n    - repeat: {times: 800}\n      steps:\n";
    for (int i = 0; i < 3; ++i) variants += "        - prune: {fraction_of_remaining: 0.0001}\n        - retrain: {epochs: 1}\n";
  }
  size_t begin = yaml.find("variants:\n") + 10;
  yaml.replace(begin, yaml.find("promote:") - begin, variants);
  Reply refused = site.Ask("submit", site.SubmitArgs(yaml));
  EXPECT_FALSE(refused.ok);
  EXPECT_EQ(refused.code, "invalid");
  EXPECT_THAT(refused.message, HasSubstr("a job has at most 20000 steps, evaluations included; this one has 38405"));
  EXPECT_EQ(site.Get("list"), Json::array());
}

TEST(LimitsTest, ARecipeOfTooManyBytesIsRefused) {
  ServiceSite site;
  Reply refused = site.Ask("submit", site.SubmitArgs(std::string(kMaxRecipeBytes + 1, '#')));
  EXPECT_EQ(refused.code, "invalid");
  EXPECT_THAT(refused.message, HasSubstr("1048577 bytes, at most 1048576"));
}

TEST(LimitsTest, ATooLongUserNameIsRefused) {
  ServiceSite site;
  Json args = site.SubmitArgs(kSmallRecipe);
  args["user"] = std::string(kMaxUserBytes + 1, 'u');
  EXPECT_THAT(site.Ask("submit", args).message, HasSubstr("'user' has 201 bytes"));
}

TEST(LimitsTest, OneWorkerTooManyIsRefused) {
  Harness h;
  auto greet = [&](size_t i) {
    std::string name = "w" + std::to_string(i);
    return h.Do(FromAgent{name, Hello{name, std::string(kPareVersion), "here", "cpu", 1, {}, {}}});
  };
  for (size_t i = 0; i < kMaxWorkers; ++i) greet(i);
  Actions actions = greet(kMaxWorkers);
  const Refused* refused = LastSent<Refused>(actions.sends, "w4096");
  ASSERT_NE(refused, nullptr);
  EXPECT_EQ(refused->code, "conflict");
  EXPECT_THAT(refused->message, HasSubstr("limit of 4096 workers"));
  EXPECT_NE(LastSent<Welcome>(greet(3).sends, "w3"), nullptr);  // one that is there already
}

TEST(LimitsTest, AStepThatFailsForEverEndsAtTheLimitOfAttempts) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  size_t attempts = 0;
  while (h.StateOf("a") != "failed" && attempts <= kMaxFailedAttempts) {
    while (!h.HasGrant("w1")) h.Pass(kMaxBackoff);
    h.Abort("w1", "no_space", "disk full");  // a class without a limit of its own
    ++attempts;
  }
  EXPECT_EQ(attempts, kMaxFailedAttempts);
  EXPECT_THAT(h.StepNamed("a").problem->message, HasSubstr("limit of 1000 failed attempts is reached; the last: disk full"));
}

TEST(LimitsTest, ALongErrorMessageIsClippedBetweenCharacters) {
  Harness h;
  h.Join("w1");
  h.SubmitPlan("job", kOne);
  std::string text;
  while (text.size() < 2 * kMaxMessageChars) text += "ä";
  h.Abort("w1", "bad_input", "x" + text);
  const std::string& kept = h.StepNamed("a").problem->message;
  EXPECT_LE(kept.size(), kMaxMessageChars + 5);
  EXPECT_NO_THROW(Canonical(Json(kept)));  // valid UTF-8
}

TEST(LimitsTest, TheHistoryOfAJobEndsAtItsLimit) {
  Harness h;
  h.SubmitPlan("job", kOne);
  for (int64_t i = 0; i <= kMaxEventsPerJob / 2; ++i) {
    h.core->Apply(ChangeJob{{"client", 1}, ChangeJob::What::kPause, "last"}, {});
    h.core->Apply(ChangeJob{{"client", 1}, ChangeJob::What::kResume, "last"}, {});
  }
  EXPECT_EQ(h.JobNamed().last_event, kMaxEventsPerJob);
}

}  // namespace
}  // namespace pare::coordinator
