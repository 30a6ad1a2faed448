# Planted bugs: each breaks one rule of the cores or their shells, to show that the simulator notices. Applied to copies of the
# sources that go into simulate_planted alone: plant(NAME FILE "what it breaks" OLD NEW) replaces OLD, which must occur exactly
# once, by NEW, which does what OLD does unless PLANTED holds. Included by CMakeLists.txt for the names and by plant.cmake,
# which writes the copies.

plant(lease_without_fence coordinator/scheduler_leases.cc
  "a report is taken under whatever lease the step has now, also an older one"
  [==[it->second.hold->epoch != lease.epoch) return nullptr;]==]
  [==[(it->second.hold->epoch != lease.epoch && !PLANTED)) return nullptr;]==])

plant(epochs_begin_anew coordinator/scheduler_restore.cc
  "a restart forgets which lease epochs were given out"
  [==[state_.last_epoch = std::max(state_.last_epoch, row.epoch);]==]
  [==[if (!PLANTED) state_.last_epoch = std::max(state_.last_epoch, row.epoch);]==])

plant(acknowledges_before_commit coordinator/service.cc
  "messages leave although the transaction failed"
  [==[    blocked_ = !status.ok();
    if (blocked_) return status;
  }]==]
  [==[    blocked_ = !status.ok();
    if (blocked_ && PLANTED) {
      std::move(pending_.sends.begin(), pending_.sends.end(), std::back_inserter(ready_));
      pending_.sends.clear();
    }
    if (blocked_) return status;
  }]==])

plant(two_transactions coordinator/service.cc
  "a turn's rows are written in two transactions"
  [==[Status status = backend_.index->Commit(pending_.rows);]==]
  [==[std::span<const storage::Row> rows(pending_.rows);
    size_t half = PLANTED ? rows.size() / 2 : 0;
    Status status = half == 0 ? Ok() : backend_.index->Commit(rows.first(half));
    if (status.ok()) status = backend_.index->Commit(rows.subspan(half));]==])

plant(result_not_written coordinator/scheduler_steps.cc
  "the row of a finished step is not written"
  [==[  ++state_.counters.steps_done;
  WriteStep(step);]==]
  [==[  ++state_.counters.steps_done;
  if (!PLANTED) WriteStep(step);]==])

plant(any_input_is_enough coordinator/scheduler_steps.cc
  "a step is ready when one of its inputs is done"
  [==[  bool complete = std::all_of(step.inputs.begin(), step.inputs.end(), [this](const auto& input) {
    const Step* from = state_.FindStep(input.second);
    return from != nullptr && from->state == kDone;
  });]==]
  [==[  auto present = [this](const auto& input) {
    const Step* from = state_.FindStep(input.second);
    return from != nullptr && (from->state == kDone || (PLANTED && from->state == kRunning));
  };
  bool complete = std::all_of(step.inputs.begin(), step.inputs.end(), present);]==])

plant(older_snapshot_wins coordinator/scheduler_leases.cc
  "an older snapshot that comes late replaces a newer one"
  [==[if (blob.is_none() || order <= step.snapshot.OrDefault().order) return;]==]
  [==[if (blob.is_none() || (order <= step.snapshot.OrDefault().order && !PLANTED)) return;]==])

plant(gap_is_acknowledged coordinator/scheduler_leases.cc
  "metric points are acknowledged although earlier ones are missing"
  [==[if (progress.after > hold.newest_point) return;]==]
  [==[if (!PLANTED && progress.after > hold.newest_point) return;]==])

plant(stale_is_not_counted coordinator/scheduler_leases.cc
  "refused messages of old leases are not counted"
  [==[  ++state_.counters.stale_refused;
  std::string why]==]
  [==[  if (!PLANTED) ++state_.counters.stale_refused;
  std::string why]==])

plant(snapshot_not_written coordinator/scheduler_leases.cc
  "the row of a snapshot is not written"
  [==[Write(storage::SnapshotRow{.key = step.key, .blob = blob,]==]
  [==[if (!PLANTED) Write(storage::SnapshotRow{.key = step.key, .blob = blob,]==])

plant(one_step_a_turn coordinator/scheduler_placement.cc
  "a turn places one step, whoever idles"
  [==[Grant(step, *placed);]==]
  [==[Grant(step, *placed);
      if (PLANTED) break;]==])

plant(leases_are_miscounted coordinator/scheduler_leases.cc
  "the share of a user still counts a lease that has ended"
  [==[share.held -= workers;]==]
  [==[if (!PLANTED) share.held -= workers;]==])

plant(lost_without_a_count coordinator/scheduler_leases.cc
  "lost leases are not counted"
  [==[++state_.counters.leases_lost;]==]
  [==[if (!PLANTED) ++state_.counters.leases_lost;]==])

plant(gc_forgets_jobs storage/gc.cc
  "a collection takes what steps of unfinished jobs read"
  [==[if (Unfinished(job)) {]==]
  [==[if (Unfinished(job) && !PLANTED) {]==])

plant(gc_takes_snapshots_on_their_way storage/gc.cc
  "a collection takes a snapshot whose report has not arrived yet"
  [==[if (keep == nullptr && open && file.put_ms >= open_since_)]==]
  [==[if (!PLANTED && keep == nullptr && open && file.put_ms >= open_since_)]==])

plant(gc_forgets_versions storage/gc.cc
  "a collection takes the checkpoints of the model registry"
  [==[if (registered_.count(row.digest) != 0)]==]
  [==[if (!PLANTED && registered_.count(row.digest) != 0)]==])

plant(gc_removes_before_the_marks coordinator/collect.cc
  "files are removed before it is durable that they may be"
  [==[  Apply(ArtifactsCollected{plan.artifacts});]==]
  [==[  if (PLANTED) (void)removal->Remove(plan);
  Apply(ArtifactsCollected{plan.artifacts});]==])

plant(gang_begins_early coordinator/scheduler_leases.cc
  "a gang begins before all of its workers are prepared"
  [==[  if (!hold.prepared()) return;]==]
  [==[  if (!hold.prepared() && !PLANTED) return;]==])

plant(gang_goes_on_without_one coordinator/scheduler_workers.cc
  "a worker that is gone is taken out of its gang, which goes on"
  [==[    if (step.hold->Find(name) != nullptr) LoseLease(step, name, reason);]==]
  [==[    if (PLANTED && step.hold->gang() && step.hold->worker() != name) continue;
    if (step.hold->Find(name) != nullptr) LoseLease(step, name, reason);]==])
