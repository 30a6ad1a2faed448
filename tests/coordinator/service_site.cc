#include "tests/coordinator/service_site.h"

#include "common/version.h"
#include "tests/coordinator/harness.h"
#include "tests/coordinator/played_steps.h"

namespace pare::coordinator {
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
  if (digest.ok()) lost.erase(*digest), cut.erase(*digest);
  return digest;
}

Result<bool> LosableBlobs::Contains(const Digest& digest) {
  if (lost.count(digest) != 0) return false;
  return inner_->Contains(digest);
}

Result<bool> LosableBlobs::Holds(const Digest& digest, int64_t bytes) {
  if (lost.count(digest) != 0 || cut.count(digest) != 0) return false;
  return inner_->Holds(digest, bytes);
}

void ServiceSite::Restart() {
  service.reset();
  auto created = Service::Create({&index, &blobs, &clock, "/store", collectable.get()}, {.config = {}, .host = "here"});
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
  auto assignment = worker::AssignmentFromText(grant.assignment);
  EXPECT_TRUE(assignment.ok());
  return PlayStep(blobs, *assignment, accuracy(NameOf(grant)));
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
