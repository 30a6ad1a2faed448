// Manifests of artifacts: a pure function of the step, read strictly.
#include "storage/artifact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/store.h"
#include "tests/storage/files.h"
#include "tests/storage/rows.h"

namespace pare::storage {
namespace {

using testing::HasSubstr;

class ArtifactTest : public testing::Test {
 protected:
  Artifact Example() {
    Artifact artifact{.kind = "checkpoint", .step = KeyOf("step"), .blobs = {}, .results = {{"accuracy", 89.5}, {"layers", {1, 2}}}};
    artifact.blobs["checkpoint"] = {DigestOf("weights"), 7};
    artifact.blobs["correct"] = {DigestOf("bits"), 4};
    return artifact;
  }
  std::unique_ptr<BlobStore> blobs_ = NewMemoryBlobStore();
};

TEST_F(ArtifactTest, ComesBackAsItWasPut) {
  (void)blobs_->Put(std::string_view("weights"));
  (void)blobs_->Put(std::string_view("bits"));
  auto digest = PutArtifact(*blobs_, Example());
  ASSERT_TRUE(digest.ok()) << digest.error().message;
  auto back = GetArtifact(*blobs_, *digest);
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(*back, Example());
}

TEST_F(ArtifactTest, TheManifestIsTheDocumentedText) {
  EXPECT_EQ(Canonical(ToJson(Example())),
            "{\"blobs\":{\"checkpoint\":{\"bytes\":7,\"digest\":\"" + DigestOf("weights").hex() + "\"},\"correct\":{\"bytes\":4,\"digest\":\"" + DigestOf("bits").hex() +
                "\"}},\"format\":1,\"kind\":\"checkpoint\",\"results\":{\"accuracy\":89.5,\"layers\":[1,2]},\"step\":\"" + KeyOf("step").hex() + "\"}");
}

TEST_F(ArtifactTest, EveryPartChangesTheDigest) {
  auto digest_of = [](const Artifact& a) { return DigestOf(Canonical(ToJson(a))); };
  std::vector<Artifact> others(5, Example());
  others[0].kind = "evaluation";
  others[1].step = KeyOf("other");
  others[2].blobs["checkpoint"].digest = DigestOf("other weights");
  others[3].results["accuracy"] = 89.6;
  others[4].blobs.erase("correct");
  for (size_t i = 0; i < others.size(); ++i) EXPECT_NE(digest_of(others[i]), digest_of(Example())) << i;
}

TEST_F(ArtifactTest, IsNotStoredBeforeItsBlobs) {
  (void)blobs_->Put(std::string_view("weights"));
  auto digest = PutArtifact(*blobs_, Example());
  ASSERT_FALSE(digest.ok());
  EXPECT_EQ(digest.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(digest.error().message, HasSubstr("'correct'"));
  EXPECT_THAT(digest.error().message, HasSubstr(DigestOf("bits").hex()));
  EXPECT_FALSE(*blobs_->Contains(DigestOf(Canonical(ToJson(Example())))));
}

TEST_F(ArtifactTest, AManifestThatIsNotOneIsRefused) {
  Json good = ToJson(Example());
  for (const char* field : {"format", "kind", "step", "blobs", "results"}) {
    Json missing = good, wrong = good;
    missing.erase(field);
    EXPECT_FALSE(ArtifactFromText(missing).ok()) << field;
    wrong[field] = Json::array();
    EXPECT_EQ(ArtifactFromText(wrong).ok(), std::string(field) == "results") << field;
  }
  Json newer = good;
  newer["format"] = 2;
  EXPECT_EQ(CodeOf(ArtifactFromText(newer)), ErrorCode::kVersion);
  Json blob = good;
  blob["blobs"]["checkpoint"]["digest"] = "abc";
  EXPECT_FALSE(ArtifactFromText(blob).ok());
  EXPECT_FALSE(ArtifactFromText(Json::array()).ok());
  EXPECT_FALSE(ArtifactFromText(Json(nullptr)).ok());
}

TEST_F(ArtifactTest, ABlobThatIsNoManifestIsTold) {
  Digest digest = *blobs_->Put(std::string_view("not json"));
  auto artifact = GetArtifact(*blobs_, digest);
  ASSERT_FALSE(artifact.ok());
  EXPECT_THAT(artifact.error().message, HasSubstr(digest.hex()));
  EXPECT_EQ(CodeOf(GetArtifact(*blobs_, DigestOf("nothing"))), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace pare::storage
