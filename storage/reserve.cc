#include "storage/reserve.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/files.h"
#include "common/log.h"

namespace pare::storage {
namespace {

class ReservedIndex : public Index {
 public:
  ReservedIndex(std::unique_ptr<Index> inner, Reserve& reserve) : inner_(std::move(inner)), reserve_(reserve) {}

  Status Commit(std::span<const Row> rows) override {
    Status status = inner_->Commit(rows);
    if (status.ok() || status.error().code != ErrorCode::kNoSpace || !reserve_.held()) return status;
    LogWarning("the disk is full; the reserve is used to record what is finished: " + status.error().message);
    reserve_.Release();
    return inner_->Commit(rows);
  }
  Result<StoredState> Load() override { return inner_->Load(); }
  Result<std::vector<MetricRow>> Metrics(const StepKey& key, int64_t limit) override { return inner_->Metrics(key, limit); }
  Result<std::vector<EventRow>> Events(std::string_view job, int64_t after, int64_t limit) override { return inner_->Events(job, after, limit); }

 private:
  std::unique_ptr<Index> inner_;
  Reserve& reserve_;
};

}  // namespace

Status Reserve::Keep() {
  if (held_) return Ok();
  UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return SystemError("cannot open " + path_, errno);
  // Allocates blocks, unlike ftruncate.
  int error;
  do {
    error = ::posix_fallocate(fd.get(), 0, bytes_);
  } while (error == EINTR);
  if (error != 0) {
    // A part of a reserve would only take away what others need.
    if (::ftruncate(fd.get(), 0) != 0) return SystemError("cannot empty " + path_, errno);
    Error failed = SystemError("cannot allocate " + std::to_string(bytes_ >> 20) + " MiB for the reserve " + path_, error);
    if (failed.code == ErrorCode::kNoSpace) failed.message += "; free at least that much";
    return failed;
  }
  held_ = true;
  return Ok();
}

void Reserve::Release() {
  held_ = false;
  if (::truncate(path_.c_str(), 0) != 0) LogWarning(SystemError("cannot empty " + path_, errno).message);
}

std::unique_ptr<Index> NewReservedIndex(std::unique_ptr<Index> inner, Reserve& reserve) {
  return std::make_unique<ReservedIndex>(std::move(inner), reserve);
}

}  // namespace pare::storage
