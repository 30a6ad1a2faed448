#include "tests/coordinator/service_site.h"

#include <cmath>

#include "common/version.h"
#include "tests/coordinator/harness.h"

namespace pare::coordinator {
namespace {

// Results as docs/formats.md has them. Bytes follow from the step's name alone, so that they differ between candidates.
Json CheckpointResults(double sparsity) {
  auto nonzero = static_cast<int64_t>(std::lround(1000 * (1 - sparsity)));
  return {{"parameters", 1000}, {"parameters_nonzero", nonzero}, {"multiply_adds", 900}, {"multiply_adds_nonzero", nonzero - 100},
          {"checkpoint_bytes", 4 * nonzero}, {"sparsity", {{"pruned_layers", sparsity}, {"weights", sparsity}, {"parameters", sparsity}}}};
}

Json EvaluationResults(const std::string& split, double accuracy, const Digest& model, Json summary) {
  int64_t total = 5000, correct = static_cast<int64_t>(accuracy * 50);
  return {{"split", split}, {"correct", correct}, {"total", total}, {"accuracy", accuracy}, {"interval", {accuracy - 0.8, accuracy + 0.8}},
          {"loss", 0.3}, {"model", model.hex()}, {"summary", std::move(summary)}};
}

}  // namespace

Status RecordingIndex::Commit(std::span<const storage::Row> rows) {
  if (failure) {
    ++failed_commits;
    return *failure;
  }
  TRY(inner_->Commit(rows));
  transactions.emplace_back(rows.begin(), rows.end());
  return Ok();
}

Result<Digest> LosableBlobs::Put(std::span<const std::byte> bytes) {
  if (failure) return *failure;
  Result<Digest> digest = inner_->Put(bytes);
  if (digest.ok()) lost.erase(*digest);
  return digest;
}

Result<bool> LosableBlobs::Contains(const Digest& digest) {
  if (lost.count(digest) != 0) return false;
  return inner_->Contains(digest);
}

void ServiceSite::Restart() {
  service.reset();
  auto created = Service::Create({&index, &blobs, &clock, "/store"}, {.config = {}, .host = "here"});
  ASSERT_TRUE(created.ok()) << created.error().message;
  service = *std::move(created);
  Turn();
}

Reply ServiceSite::Ask(const std::string& method, Json args) {
  clock.Advance(Millis(1));
  Request request;
  request.id = next_request_++;
  request.method = method;
  request.args = std::move(args);
  service->Receive("client", request);
  Turn();
  for (auto it = sent.rbegin(); it != sent.rend(); ++it) {
    auto* reply = std::get_if<Reply>(&it->message);
    if (it->peer == "client" && reply != nullptr && reply->id == request.id) return *reply;
  }
  ADD_FAILURE() << "no reply to " << method;
  return {};
}

Json ServiceSite::Get(const std::string& method, Json args) {
  Reply reply = Ask(method, std::move(args));
  EXPECT_TRUE(reply.ok) << method << ": " << reply.code << ": " << reply.message;
  return reply.result;
}

Json ServiceSite::SubmitArgs(const std::string& yaml) {
  data::DataInfo info = TestData();
  info.blob = *blobs.Put("the images");
  return {{"recipe", yaml}, {"recipe_name", "test.yaml"}, {"data", data::ToJson(info)}, {"weights", ""}};
}

std::string ServiceSite::Submit(const std::string& yaml, const std::string& user) {
  Json args = SubmitArgs(yaml);
  args["user"] = user;
  return Get("submit", std::move(args)).value("job", "");
}

void ServiceSite::Join(const std::string& worker) {
  Say(worker, Hello{worker, std::string(kPareVersion), "here", "cpu", 1, {}, {}});
}

void ServiceSite::Turn() {
  service->Tick();
  Status status = service->Flush();
  EXPECT_EQ(status.ok(), !index.failure && !blobs.failure);
  Learn();
}

void ServiceSite::Learn() {
  for (Send& send : service->TakeSends()) {
    if (auto* grant = std::get_if<Grant>(&send.message)) grants_[send.peer] = *grant;
    sent.push_back(std::move(send));
  }
}

void ServiceSite::Say(const std::string& worker, const Message& message) {
  service->Receive(worker, message);
  Turn();
}

const Grant* ServiceSite::Granted(const std::string& worker) const {
  auto grant = grants_.find(worker);
  return grant == grants_.end() ? nullptr : &grant->second;
}

Json ServiceSite::ManifestFor(const Grant& grant) {
  auto assignment = worker::AssignmentFromJson(grant.assignment);
  EXPECT_TRUE(assignment.ok());
  const Json& params = assignment->spec["params"];
  storage::Artifact artifact{.step = grant.lease.step};
  std::string bytes = "bytes of " + grant.lease.step.hex();
  artifact.kind = assignment->spec["kind"] == "evaluate" ? "evaluation" : "checkpoint";
  artifact.blobs[artifact.kind == "evaluation" ? "correct" : "checkpoint"] = {*blobs.Put(bytes), static_cast<int64_t>(bytes.size())};
  double sparsity = 0;
  auto input = assignment->inputs.find("model");
  Json summary;
  if (input != assignment->inputs.end()) {
    summary = storage::GetArtifact(blobs, input->second)->results;
    sparsity = summary["sparsity"]["pruned_layers"];
  }
  if (params.contains("sparsity")) sparsity = params["sparsity"];
  artifact.results = artifact.kind == "evaluation" ? EvaluationResults(params["split"], accuracy(NameOf(grant)), input->second, summary) : CheckpointResults(sparsity);
  auto digest = storage::PutArtifact(blobs, artifact);
  EXPECT_TRUE(digest.ok());
  return storage::ToJson(artifact);
}

void ServiceSite::Finish(const std::string& worker) {
  ASSERT_NE(Granted(worker), nullptr) << worker << " has no grant";
  Grant grant = *Granted(worker);
  grants_.erase(worker);
  Json manifest = ManifestFor(grant);
  ++finished;
  clock.Advance(Millis(100));
  Say(worker, StepFinished{grant.lease, ArtifactOf(manifest), manifest, 100});
}

void ServiceSite::Abort(const std::string& worker, const std::string& error_class, const std::string& message) {
  ASSERT_NE(Granted(worker), nullptr) << worker << " has no grant";
  Lease lease = Granted(worker)->lease;
  grants_.erase(worker);
  Say(worker, StepAborted{lease, error_class, message, 10});
}

std::string ServiceSite::NameOf(const Grant& grant) const {
  const Job* newest = nullptr;
  for (const auto& [id, job] : service->scheduler().state().jobs) {
    if (job.Find(grant.lease.step) != nullptr && (newest == nullptr || job.number > newest->number)) newest = &job;
  }
  return newest == nullptr ? "" : newest->Find(grant.lease.step)->name;
}

void ServiceSite::FinishAll() {
  while (!grants_.empty()) Finish(std::string(grants_.begin()->first));
}

}  // namespace pare::coordinator
