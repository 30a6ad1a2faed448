#include "coordinator/service.h"

#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "common/version.h"
#include "data/dataset.h"
#include "storage/artifact.h"

namespace pare::coordinator {
namespace {

constexpr int64_t kMaxPriority = 1'000;

Result<bool> BoolOr(const Json& args, const char* field, bool otherwise) {
  if (!args.contains(field)) return otherwise;
  return BoolField(args, field);
}

Result<std::string> TextOr(const Json& args, const char* field, std::string otherwise) {
  if (!args.contains(field)) return otherwise;
  return StringField(args, field);
}

}  // namespace

std::string HostName() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

Service::Service(const Backend& backend, const ServiceOptions& options, std::unique_ptr<storage::Store> store, std::unique_ptr<Clock> clock)
    : store_(std::move(store)),
      clock_(std::move(clock)),
      backend_(backend),
      scheduler_(options.config, Site{backend.store, options.host.empty() ? HostName() : options.host, ""}, RecipePlanner()) {}

Service::~Service() = default;

Result<std::unique_ptr<Service>> Service::Open(const std::string& root, const ServiceOptions& options) {
  ASSIGN_OR_RETURN(auto store, storage::Store::Open(root));
  auto clock = std::make_unique<SystemClock>();
  Backend backend{&store->index(), &store->blobs(), clock.get(), root};
  auto collectable = storage::CollectableDirectory(store->paths());
  backend.collectable = collectable.get();
  std::unique_ptr<Service> service(new Service(backend, options, std::move(store), std::move(clock)));
  service->collectable_ = std::move(collectable);
  TRY(service->Start());
  return service;
}

Result<std::unique_ptr<Service>> Service::Create(const Backend& backend, const ServiceOptions& options) {
  std::unique_ptr<Service> service(new Service(backend, options, nullptr, nullptr));
  TRY(service->Start());
  return service;
}

Status Service::Start() {
  ASSIGN_OR_RETURN(storage::StoredState stored, backend_.index->Load());
  pending_.Append(scheduler_.Restore(std::move(stored), Time()));
  CheckArtifacts(scheduler_.StepsInUse());
  return Ok();
}

Reply Service::Handle(const Request& request) {
  Reply reply;
  reply.id = request.id;
  reply.ok = false;
  // As a loop refuses it: what is accepted on a full disk could not be run.
  Status status = IsAnsweredWhileFull(request.method) || store_ == nullptr ? Ok() : store_->KeepReserve();
  if (!status.ok()) status = status.error().With(kRefusedWhileFull);
  if (status.ok()) {
    Receive(kLocalPeer, request);
    status = Flush();
  }
  if (!status.ok()) {
    reply.code = std::string(ToString(status.error().code));
    reply.message = status.error().message;
    return reply;
  }
  for (Send& send : TakeSends()) {
    auto* answer = std::get_if<Reply>(&send.message);
    if (answer != nullptr && send.peer == kLocalPeer && answer->id == request.id) reply = std::move(*answer);
  }
  return reply;
}

void Service::Receive(const PeerId& peer, const Message& message) {
  if (auto* request = std::get_if<Request>(&message)) return OnRequest(peer, *request);
  if (auto* finished = std::get_if<StepFinished>(&message)) return CheckFinished(peer, *finished);
  if (auto* snapshot = std::get_if<SnapshotTaken>(&message); snapshot != nullptr && IsGone(snapshot->blob)) {
    SnapshotTaken without = *snapshot;
    without.blob = Digest();
    return Apply(FromAgent{peer, std::move(without)});
  }
  if (auto* released = std::get_if<Released>(&message); released != nullptr && IsGone(released->snapshot)) {
    Released without = *released;
    without.snapshot = Digest();
    return Apply(FromAgent{peer, std::move(without)});
  }
  if (auto* aborted = std::get_if<StepAborted>(&message); aborted != nullptr && aborted->error_class == "corrupt") {
    CheckInputs(aborted->lease.step);
  }
  Apply(FromAgent{peer, message});
}

void Service::Apply(const Event& event) { pending_.Append(scheduler_.Apply(event, Time())); }

Status Service::Flush() {
  for (const std::string& blob : pending_.blobs) {
    auto put = backend_.blobs->Put(std::string_view(blob));
    blocked_ = !put.ok();
    if (blocked_) return put.error().With("cannot store a manifest");
  }
  pending_.blobs.clear();
  if (!pending_.rows.empty()) {
    Status status = backend_.index->Commit(pending_.rows);
    blocked_ = !status.ok();
    if (blocked_) return status;
  }
  blocked_ = false;
  for (storage::Row& row : pending_.rows) {
    if (auto* event = std::get_if<storage::EventRow>(&row)) events_.push_back(std::move(*event));
  }
  pending_.rows.clear();
  std::move(pending_.sends.begin(), pending_.sends.end(), std::back_inserter(ready_));
  pending_.sends.clear();
  stopping_ = stopping_ || pending_.stop;
  return Ok();
}

// ---- requests ----

QueryContext Service::Context() {
  return {scheduler_.state(), *backend_.index, scheduler_.planner(), Time(), backend_.store, scheduler_.site().blob_endpoint};
}

void Service::ReplyTo(const PeerId& peer, int64_t id, Result<Json> result) {
  Reply reply;
  reply.id = id;
  reply.ok = result.ok();
  if (result.ok()) {
    reply.result = *std::move(result);
  } else {
    reply.code = std::string(ToString(result.error().code));
    reply.message = result.error().message;
  }
  pending_.sends.push_back({peer, std::move(reply)});
}

void Service::OnRequest(const PeerId& peer, const Request& request) {
  if (request.method == "known") {
    // As for a submit: what is told to be there must be there.
    auto keys = KeysOf(request.args);
    if (keys.ok()) CheckArtifacts(*keys);
  }
  if (request.method == "gc") return ReplyTo(peer, request.id, Collect(request.args));
  if (IsQuery(request.method)) return ReplyTo(peer, request.id, Answer(Context(), request.method, request.args));
  Result<Event> event = EventOf(peer, request);
  if (!event.ok()) return ReplyTo(peer, request.id, event.error());
  if (auto* submit = std::get_if<Submit>(&*event)) {
    std::vector<StepKey> keys;
    for (const recipes::PlannedStep& planned : recipes::FullPlan(submit->recipe)) keys.push_back(planned.key);
    submit->steps = keys.size();
    CheckArtifacts(keys);
  }
  Apply(*event);
}

Result<Event> Service::EventOf(const PeerId& peer, const Request& request) {
  const Json& args = request.args;
  const std::string& method = request.method;
  Caller caller{peer, request.id};
  static const std::map<std::string, ChangeJob::What> kChanges = {{"pause", ChangeJob::What::kPause},
                                                                  {"resume", ChangeJob::What::kResume},
                                                                  {"cancel", ChangeJob::What::kCancel},
                                                                  {"retry", ChangeJob::What::kRetry}};
  if (auto change = kChanges.find(method); change != kChanges.end()) {
    ASSIGN_OR_RETURN(std::string job, StringField(args, "job"));
    return Event(ChangeJob{caller, change->second, std::move(job)});
  }
  if (method == "submit") return SubmitOf(caller, args);
  std::optional<int64_t> expected;
  if (args.contains("expected")) {
    ASSIGN_OR_RETURN(expected, IntField(args, "expected"));
  }
  if (method == "promote") {
    ASSIGN_OR_RETURN(std::string name, StringField(args, "name"));
    if (args.contains("version")) {
      ASSIGN_OR_RETURN(int64_t version, IntField(args, "version"));
      return Event(PromoteVersion{caller, std::move(name), version, expected});
    }
    ASSIGN_OR_RETURN(std::string job, StringField(args, "job"));
    ASSIGN_OR_RETURN(std::string step, StringField(args, "step"));
    return Event(PromoteCandidate{caller, std::move(name), std::move(job), std::move(step), expected});
  }
  if (method == "rollback") {
    ASSIGN_OR_RETURN(std::string name, StringField(args, "name"));
    return Event(Rollback{caller, std::move(name), expected});
  }
  if (method == "shutdown") {
    ASSIGN_OR_RETURN(bool workers, BoolOr(args, "workers", false));
    return Event(Shut{caller, workers});
  }
  return Error{ErrorCode::kInvalid, "there is no request '" + method + "': this coordinator is of version " + std::string(kPareVersion)};
}

Result<Event> Service::SubmitOf(const Caller& caller, const Json& args) {
  Submit submit{.caller = caller};
  ASSIGN_OR_RETURN(submit.recipe_text, StringField(args, "recipe"));
  if (submit.recipe_text.size() > kMaxRecipeBytes) {
    return Error{ErrorCode::kInvalid, "the recipe has " + std::to_string(submit.recipe_text.size()) + " bytes, at most " +
                                          std::to_string(kMaxRecipeBytes) + " are accepted"};
  }
  ASSIGN_OR_RETURN(std::string name, TextOr(args, "recipe_name", "recipe"));
  ASSIGN_OR_RETURN(submit.user, TextOr(args, "user", ""));
  if (submit.user.size() > kMaxUserBytes) {
    return Error{ErrorCode::kInvalid, "field 'user' has " + std::to_string(submit.user.size()) + " bytes, at most " + std::to_string(kMaxUserBytes) + " are accepted"};
  }
  ASSIGN_OR_RETURN(submit.reuse, BoolOr(args, "reuse", true));
  if (args.contains("priority")) {
    ASSIGN_OR_RETURN(submit.priority, IntField(args, "priority"));
    if (submit.priority < -kMaxPriority || submit.priority > kMaxPriority) {
      return Error{ErrorCode::kInvalid, "priority " + std::to_string(submit.priority) + ": allowed is −" + std::to_string(kMaxPriority) + " to " +
                                            std::to_string(kMaxPriority)};
    }
  }
  if (!args.contains("data")) return Error{ErrorCode::kInvalid, "field 'data' is missing"};
  ASSIGN_OR_RETURN(data::DataInfo data, data::DataInfoFromJson(args["data"]));
  Digest weights;
  ASSIGN_OR_RETURN(std::string hex, TextOr(args, "weights", ""));
  if (!hex.empty()) {
    ASSIGN_OR_RETURN(weights, Digest::FromHex(hex));
  }
  for (const auto& [digest, what] : {std::pair(data.blob, "dataset"), std::pair(weights, "weights")}) {
    if (digest.is_none()) continue;
    ASSIGN_OR_RETURN(bool there, backend_.blobs->Contains(digest));
    if (!there) return Error{ErrorCode::kNotFound, std::string("the ") + what + " blob " + digest.brief() + " is not in the store: store it before the submit"};
  }
  ASSIGN_OR_RETURN(recipes::OutsideModels models, recipes::OutsideModelsFromJson(args.value("models", Json::object())));
  for (const auto& [text, model] : models) {
    const Digest& digest = model.artifact.is_none() ? model.weights : model.artifact;
    ASSIGN_OR_RETURN(bool there, backend_.blobs->Contains(digest));
    if (!there) return Error{ErrorCode::kNotFound, "model '" + text + "': blob " + digest.brief() + " is not in the store: store it before the submit"};
  }
  ASSIGN_OR_RETURN(recipes::Recipe recipe, recipes::Recipe::Parse(submit.recipe_text, name));
  ASSIGN_OR_RETURN(submit.recipe, recipes::Resolve(recipe, data, weights, models));
  return Event(std::move(submit));
}

// ---- what the rows say and what the store holds ----

bool Service::IsGone(const Digest& blob) {
  if (blob.is_none()) return false;
  auto there = backend_.blobs->Contains(blob);
  return there.ok() && !*there;  // a store that cannot be read just now has lost nothing
}

// One of another size is as good as gone: the step that runs again replaces it.
bool Service::IsGone(const storage::BlobReference& blob) {
  auto there = backend_.blobs->Holds(blob.digest, blob.bytes);
  return there.ok() && !*there;
}

bool Service::Present(const Digest& artifact, const ArtifactRecord& record, bool thoroughly) {
  auto damaged = [&](const Digest& digest) {
    if (!thoroughly) return false;
    auto bytes = backend_.blobs->Get(digest);
    return !bytes.ok() && bytes.error().code == ErrorCode::kCorrupt;
  };
  if (IsGone(artifact) || damaged(artifact)) return false;
  return std::none_of(record.blobs.begin(), record.blobs.end(), [&](const auto& blob) { return IsGone(blob.second) || damaged(blob.second.digest); });
}

void Service::CheckArtifacts(const std::vector<StepKey>& keys, bool thoroughly) {
  std::vector<StepKey> lost;
  for (const StepKey& key : keys) {
    const ArtifactRecord* record = scheduler_.state().ArtifactOf(key);
    // A collected one is made again when a plan needs it (Scheduler::MakeAgain); until then reports need its numbers.
    if (record != nullptr && !record->collected && !Present(scheduler_.state().FindStep(key)->artifact, *record, thoroughly)) lost.push_back(key);
  }
  if (!lost.empty()) Apply(ArtifactsLost{std::move(lost)});
}

// A worker found something damaged: what it read may be gone.
void Service::CheckInputs(const StepKey& key) {
  const Step* step = scheduler_.state().FindStep(key);
  if (step == nullptr) return;
  std::vector<StepKey> keys;
  for (const auto& [role, input] : step->inputs) keys.push_back(input);
  CheckArtifacts(keys, true);
}

// "Durable in the store already" is what an agent says; a row must never name a blob that is not there.
void Service::CheckFinished(const PeerId& peer, const StepFinished& finished) {
  std::string missing;
  auto artifact = storage::HeadFromText(finished.manifest);
  if (IsGone(finished.artifact)) missing = finished.artifact.brief();
  if (artifact.ok()) {
    for (const auto& [role, blob] : artifact->blobs) {
      if (IsGone(blob)) missing = blob.digest.brief();
    }
  }
  if (missing.empty()) return Apply(FromAgent{peer, finished});
  Apply(BadResult{peer, finished, "the worker says it is done, but blob " + missing + " is not in the store, or not whole"});
}

}  // namespace pare::coordinator
