// The index: what is committed is what is loaded; all of a transaction or nothing; databases that are not ours.
#include "storage/index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/schema.h"
#include "storage/sqlite.h"
#include "tests/storage/files.h"
#include "tests/storage/older_store.h"
#include "tests/storage/rows.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

class IndexTest : public testing::Test {
 protected:
  void SetUp() override { Reopen(); }
  void Reopen() {
    index_.reset();
    index_ = std::move(Index::Open(path_)).value();
  }
  StoredState State() { return std::move(index_->Load()).value(); }
  // Closes the index and changes bytes of its file.
  void Overwrite(size_t offset, const std::string& bytes) {
    index_.reset();
    std::string all = ReadBytes(path_);
    ASSERT_LE(offset + bytes.size(), all.size());
    WriteBytes(path_, all.replace(offset, bytes.size(), bytes));
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_ / "index.db";
  std::unique_ptr<Index> index_;
};

TEST_F(IndexTest, ANewIndexIsEmpty) {
  StoredState state = State();
  EXPECT_TRUE(state.jobs.empty() && state.steps.empty() && state.attempts.empty() && state.versions.empty() && state.last_event.empty());
}

TEST_F(IndexTest, EveryFieldOfEveryRowComesBackAfterReopening) {
  std::vector<Row> rows = RowOfEveryType();
  ASSERT_TRUE(index_->Commit(rows).ok());
  Reopen();
  StoredState state = State();
  EXPECT_EQ(state.jobs, std::vector{std::get<JobRow>(rows[0])});
  EXPECT_EQ(state.steps, std::vector{std::get<StepRow>(rows[1])});
  EXPECT_EQ(state.job_steps, std::vector{std::get<JobStepRow>(rows[2])});
  EXPECT_EQ(state.attempts, std::vector{std::get<AttemptRow>(rows[3])});
  EXPECT_EQ(state.snapshots, std::vector{std::get<SnapshotRow>(rows[5])});
  EXPECT_EQ(state.artifacts, std::vector{std::get<ArtifactRow>(rows[6])});
  EXPECT_EQ(state.versions, std::vector{std::get<VersionRow>(rows[7])});
  EXPECT_EQ(state.aliases, std::vector{std::get<AliasRow>(rows[8])});
  EXPECT_EQ(state.promotions, std::vector{std::get<PromotionRow>(rows[9])});
  EXPECT_EQ(state.last_event, (std::map<std::string, int64_t>{{"j000000001", 1}}));
  EXPECT_EQ(*index_->Metrics(KeyOf("one"), 10), std::vector{std::get<MetricRow>(rows[4])});
  EXPECT_EQ(*index_->Events("j000000001", 0, 10), std::vector{std::get<EventRow>(rows[10])});
}

TEST_F(IndexTest, RowsOfATransactionMayComeInAnyOrder) {
  std::vector<Row> rows = RowOfEveryType();
  std::reverse(rows.begin(), rows.end());
  Status status = index_->Commit(rows);
  EXPECT_TRUE(status.ok()) << status.error().message;
}

TEST_F(IndexTest, ARowOfAKnownKeyReplacesEveryOtherField) {
  ASSERT_TRUE(index_->Commit(RowOfEveryType()).ok());
  JobRow job{.id = "j000000001", .name = "b", .user = "c", .state = "done", .created_ms = 1, .finished_ms = 2, .recipe_text = "d", .recipe_digest = {},
             .resolved = Json::array(), .message = "", .priority = 4};
  StepRow step{.key = KeyOf("one"), .kind = "train", .spec = Json::object(), .state = "waiting", .attempts = 0, .artifact = {}, .error_class = "", .message = ""};
  JobStepRow job_step{.job = "j000000001", .name = "iterative/01-prune", .ordinal = 1, .variant = "v", .key = KeyOf("one"), .reused = false, .wanted = true};
  SnapshotRow snapshot{.key = KeyOf("one"), .blob = {}, .at_ms = 1, .position = JsonText()};
  ASSERT_TRUE(index_->Commit(std::vector<Row>{job, step, job_step, snapshot}).ok());
  StoredState state = State();
  EXPECT_EQ(state.jobs, std::vector{job});
  EXPECT_EQ(state.steps, std::vector{step});
  EXPECT_EQ(state.job_steps, std::vector{job_step});
  EXPECT_EQ(state.snapshots, std::vector{snapshot});
  EXPECT_EQ(state.artifacts.size(), 1u);  // what referred to the old row stays
}

TEST_F(IndexTest, JobsKeepTheOrderOfTheirCreation) {
  for (const char* id : {"j3", "j1", "j2"}) Commit(*index_, std::vector{JobOf(id)});
  JobRow changed = JobOf("j3");
  changed.state = "done";
  Commit(*index_, std::vector{changed});
  Reopen();
  std::vector<std::string> ids;
  for (const JobRow& job : State().jobs) ids.push_back(job.id);
  EXPECT_EQ(ids, (std::vector<std::string>{"j3", "j1", "j2"}));
}

TEST_F(IndexTest, AnAliasWithoutAVersionIsGone) {
  ASSERT_TRUE(index_->Commit(RowOfEveryType()).ok());
  Commit(*index_, std::vector{AliasRow{"lenet", "champion", 0}, AliasRow{"lenet", "never was", 0}});
  EXPECT_TRUE(State().aliases.empty());
}

TEST_F(IndexTest, MetricsAreTheNewestInOrder) {
  Commit(*index_, std::vector{StepOf("one"), StepOf("two")});
  std::vector<MetricRow> rows;
  for (int64_t epoch : {2, 1}) {
    for (int64_t sequence : {3, 1, 2}) rows.push_back({.key = KeyOf("one"), .lease_epoch = epoch, .sequence = sequence, .values = Json(10 * epoch + sequence)});
  }
  rows.push_back({.key = KeyOf("two"), .lease_epoch = 9, .sequence = 9, .values = Json::object()});
  Commit(*index_, rows);
  std::vector<int64_t> got;
  std::vector<MetricRow> newest = *index_->Metrics(KeyOf("one"), 4);
  for (const MetricRow& row : newest) got.push_back(row.values.Tree().get<int64_t>());
  EXPECT_EQ(got, (std::vector<int64_t>{13, 21, 22, 23}));
}

TEST_F(IndexTest, EventsComeAfterASequenceOldestFirst) {
  Commit(*index_, std::vector{JobOf("a"), JobOf("b")});
  for (int64_t i = 1; i <= 5; ++i) Commit(*index_, std::vector{EventRow{.job = "a", .sequence = i, .text = std::to_string(i)}});
  Commit(*index_, std::vector{EventRow{.job = "b", .sequence = 3, .text = "other"}});
  std::string texts;
  std::vector<EventRow> events = *index_->Events("a", 2, 2);
  for (const EventRow& row : events) texts += row.text;
  EXPECT_EQ(texts, "34");
  EXPECT_EQ(State().last_event, (std::map<std::string, int64_t>{{"a", 5}, {"b", 3}}));
}

TEST_F(IndexTest, ARowThatRefersToNothingIsRefusedWithAllOfItsTransaction) {
  const std::vector<Row> dangling = {
      JobStepRow{.job = "nobody", .name = "x", .key = KeyOf("one")}, AttemptRow{.key = KeyOf("none"), .epoch = 1}, MetricRow{.key = KeyOf("none"), .values = Json::object()},
      SnapshotRow{.key = KeyOf("none")}, ArtifactOf("none"), VersionRow{.model = "m", .version = 1, .artifact = DigestOf("none"), .evidence = Json::object()},
      AliasRow{"m", "champion", 7}, EventRow{.job = "nobody", .sequence = 1}};
  for (const Row& row : dangling) {
    Status status = index_->Commit(std::vector<Row>{StepOf("good"), row});
    ASSERT_FALSE(status.ok()) << row.index();
    EXPECT_EQ(status.error().code, ErrorCode::kInternal);
    EXPECT_TRUE(State().steps.empty()) << row.index();
  }
  Commit(*index_, std::vector{StepOf("good")});  // and the index works on
}

TEST_F(IndexTest, AValueThatNoRowMayHaveIsRefusedWithAllOfItsTransaction) {
  StepRow nameless = StepOf("x");
  nameless.key = {};
  StepRow negative = StepOf("y");
  negative.attempts = -1;
  for (const StepRow& bad : {nameless, negative}) {
    EXPECT_FALSE(index_->Commit(std::vector<Row>{StepOf("good"), bad}).ok());
    EXPECT_TRUE(State().steps.empty());
  }
}

// A child commits transactions of several rows and tells each through a pipe once Commit has returned; it is killed in the
// middle. Every transaction that it told of is there, and no transaction is there in part.
TEST_F(IndexTest, EveryAcknowledgedTransactionSurvivesAKill) {
  index_.reset();
  constexpr int kRows = 7;
  int last = 0;
  for (int round = 0; round < 8; ++round) {
    int told[2];
    ASSERT_EQ(::pipe(told), 0);
    pid_t child = ::fork();
    if (child == 0) {
      auto index = Index::Open(path_);
      for (int n = last + 1; index.ok(); ++n) {
        std::vector<Row> rows;
        for (int i = 0; i < kRows; ++i) rows.push_back(StepOf(std::to_string(n) + "/" + std::to_string(i)));
        if (!(*index)->Commit(rows).ok() || ::write(told[1], &n, sizeof n) != sizeof n) break;
      }
      ::_exit(1);
    }
    ::close(told[1]);
    int acknowledged = last, n = 0;
    for (int i = 0; i < 5 + 3 * round && ::read(told[0], &n, sizeof n) == sizeof n; ++i) acknowledged = n;
    ::kill(child, SIGKILL);
    while (::read(told[0], &n, sizeof n) == sizeof n) acknowledged = n;
    ::close(told[0]);
    ::waitpid(child, nullptr, 0);
    ASSERT_GT(acknowledged, last);
    Reopen();
    std::map<StepKey, bool> there;
    for (const StepRow& step : State().steps) there[step.key] = true;
    EXPECT_EQ(there.size() % kRows, 0u);
    auto count = static_cast<int>(there.size()) / kRows;
    EXPECT_GE(count, acknowledged);
    for (int t = 1; t <= count; ++t) {
      for (int i = 0; i < kRows; ++i) EXPECT_TRUE(there.count(KeyOf(std::to_string(t) + "/" + std::to_string(i)))) << t << "/" << i;
    }
    last = count;
    index_.reset();
  }
}

// Offsets: "The SQLite Database File Format", section 1.3.
constexpr size_t kWriteVersionAt = 18, kUserVersionAt = 60, kApplicationIdAt = 68;

TEST_F(IndexTest, TheFileSaysWhatItIs) {
  ASSERT_TRUE(index_->Commit(RowOfEveryType()).ok());
  EXPECT_TRUE(std::filesystem::exists(path_ + "-wal"));
  index_.reset();
  std::string bytes = ReadBytes(path_);
  EXPECT_EQ(bytes.substr(kApplicationIdAt, 4), "PARE");
  EXPECT_EQ(bytes.substr(kUserVersionAt, 4), std::string("\0\0\0", 3) + static_cast<char>(kSchemaVersion));
  EXPECT_EQ(bytes.substr(kWriteVersionAt, 2), "\2\2");  // write-ahead log
}

TEST_F(IndexTest, ANewerSchemaIsRefusedAndUntouched) {
  index_.reset();
  MakeNewer(path_);
  std::string before = ReadBytes(path_);
  auto opened = Index::Open(path_);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kVersion);
  EXPECT_THAT(opened.error().message, HasSubstr("schema version " + std::to_string(kSchemaVersion + 1)));
  EXPECT_THAT(opened.error().message, HasSubstr(path_));
  EXPECT_EQ(CodeOf(Index::OpenForReading(path_)), ErrorCode::kVersion);
  EXPECT_EQ(ReadBytes(path_), before);
}

TEST_F(IndexTest, TheDatabaseOfAnotherProgramIsRefusedAndUntouched) {
  index_.reset();
  ASSERT_TRUE((*Database::Open(path_, Database::Mode::kWrite))->Run("CREATE TABLE songs(x)").ok());
  for (const char* id : {"SONG", "\0\0\0\0"}) {
    Overwrite(kApplicationIdAt, std::string(id, 4));
    std::string before = ReadBytes(path_);
    for (auto open : {&Index::Open, &Index::OpenForReading}) {
      auto opened = open(path_);
      ASSERT_FALSE(opened.ok());
      EXPECT_EQ(opened.error().code, ErrorCode::kInvalid);
      EXPECT_THAT(opened.error().message, HasSubstr("not the index of a Pare store"));
    }
    EXPECT_EQ(ReadBytes(path_), before);
  }
}

// The tables tell what is not true.
TEST_F(IndexTest, ANumberInTheHeaderThatItsTablesContradictIsDamage) {
  index_.reset();
  std::string whole = ReadBytes(path_), newer = std::string("\0\0\0", 3) + static_cast<char>(kSchemaVersion + 1);
  std::vector<std::pair<size_t, std::string>> numbers = {{kApplicationIdAt, "PARD"}, {kUserVersionAt, newer}};
  for (std::string_view version : {std::string_view("\0\0\0\0", 4), std::string_view("\0\0\0\1", 4), std::string_view("\x80\0\0\4", 4)}) numbers.emplace_back(kUserVersionAt, version);
  for (const auto& [at, number] : numbers) {
    Overwrite(at, number);
    std::string before = ReadBytes(path_);
    for (auto open : {&Index::Open, &Index::OpenForReading}) {
      auto opened = open(path_);
      ASSERT_FALSE(opened.ok());
      EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
      EXPECT_THAT(opened.error().message, HasSubstr("beside the tables of schema version " + std::to_string(kSchemaVersion)));
    }
    EXPECT_EQ(ReadBytes(path_), before);
    WriteBytes(path_, whole);
  }
}

TEST_F(IndexTest, AFileOfSomethingElseIsCorruptAndUntouched) {
  std::string other = directory_ / "text.db", text = RandomBytes(20'000, 3);
  WriteBytes(other, text);
  for (auto open : {&Index::Open, &Index::OpenForReading}) {
    auto opened = open(other);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(opened.error().message, HasSubstr(other));
  }
  EXPECT_EQ(ReadBytes(other), text);
}

TEST_F(IndexTest, ADamagedPageIsToldNotMisread) {
  std::vector<StepRow> steps;
  for (int i = 0; i < 2000; ++i) steps.push_back(StepOf(std::to_string(i)));
  Commit(*index_, steps);
  index_.reset();  // moves the log into the file
  std::string bytes = ReadBytes(path_);
  for (size_t page = bytes.size() / 4096 / 2, n = 0; n < 40; ++n) bytes.replace((page + n) * 4096, 64, std::string(64, '\xA5'));
  WriteBytes(path_, bytes);
  auto opened = Index::Open(path_);
  if (opened.ok()) EXPECT_EQ(CodeOf((*opened)->Load()), ErrorCode::kCorrupt);
  else EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
}

TEST_F(IndexTest, AValueThatDoesNotParseNamesItsColumn) {
  Commit(*index_, std::vector{StepOf("one")});
  index_.reset();
  Overwrite(ReadBytes(path_).find("{\"kind\":\"prune\""), "{not json");
  index_ = std::move(Index::Open(path_)).value();
  auto state = index_->Load();
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(state.error().message, HasSubstr("column spec of a row of steps"));
}

TEST_F(IndexTest, AReaderSeesWhatWasCommittedBesideTheWriterAndWritesNothing) {
  ASSERT_TRUE(index_->Commit(RowOfEveryType()).ok());
  auto reader = Index::OpenForReading(path_);
  ASSERT_TRUE(reader.ok()) << reader.error().message;
  EXPECT_EQ((*reader)->Load()->jobs.size(), 1u);
  Commit(*index_, std::vector{JobOf("j2")});
  EXPECT_EQ((*reader)->Load()->jobs.size(), 2u);
  Status status = (*reader)->Commit(std::vector<Row>{JobOf("j3")});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kConflict);
  EXPECT_EQ(State().jobs.size(), 2u);
}

TEST_F(IndexTest, AReaderCreatesNothing) {
  EXPECT_EQ(CodeOf(Index::OpenForReading(directory_ / "none.db")), ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(directory_ / "none.db"));
  WriteBytes(directory_ / "empty.db", "");
  EXPECT_EQ(CodeOf(Index::OpenForReading(directory_ / "empty.db")), ErrorCode::kNotFound);
}

TEST_F(IndexTest, AnIndexLockedByAnotherWriterIsAConflict) {
  Commit(*index_, std::vector{JobOf("j1")});
  int ready[2], end[2];
  ASSERT_TRUE(::pipe(ready) == 0 && ::pipe(end) == 0);
  pid_t child = ::fork();
  if (child == 0) {
    // What SQLite does to write ("WAL-Mode File Format", section 2.3): a lock on byte 120 of the -shm file.
    int shm = ::open((path_ + "-shm").c_str(), O_RDWR);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = 120;
    lock.l_len = 1;
    char byte = ::fcntl(shm, F_SETLK, &lock) == 0 ? 'y' : 'n';
    ::close(end[1]);
    if (::write(ready[1], &byte, 1) == 1) (void)!::read(end[0], &byte, 1);
    ::_exit(0);
  }
  char locked = 0;
  ASSERT_EQ(::read(ready[0], &locked, 1), 1);
  ASSERT_EQ(locked, 'y');
  Status status = index_->Commit(std::vector<Row>{JobOf("j2")});
  for (int fd : {end[0], end[1], ready[0], ready[1]}) ::close(fd);
  ::waitpid(child, nullptr, 0);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kConflict);
  EXPECT_TRUE(index_->Commit(std::vector<Row>{JobOf("j2")}).ok());
}

TEST_F(IndexTest, AnIndexInMemoryKeepsTheSameRules) {
  auto memory = Index::OpenInMemory();
  EXPECT_TRUE((*memory)->Commit(RowOfEveryType()).ok());
  EXPECT_EQ((*memory)->Load()->steps.size(), 1u);
  EXPECT_FALSE((*memory)->Commit(std::vector<Row>{ArtifactOf("none")}).ok());
}

}  // namespace
}  // namespace pare::storage
