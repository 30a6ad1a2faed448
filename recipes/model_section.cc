#include "recipes/model_section.h"

#include "model/architectures.h"

namespace pare::recipes {
namespace {

// Leaves the architecture's own fields.
std::string TakeArchitecture(Json& section) {
  std::string architecture = section.at("architecture").get<std::string>();
  section.erase("architecture");
  section.erase("weights");
  return architecture;
}

}  // namespace

Result<Json> ResolveModelSection(Json section) {
  std::string architecture = TakeArchitecture(section);
  ASSIGN_OR_RETURN(Json resolved, model::ResolveArchitecture(architecture, section));
  resolved["architecture"] = architecture;
  return resolved;
}

Result<model::Graph> BuildModelSection(Json section, const data::DataInfo& data) {
  std::string architecture = TakeArchitecture(section);
  ASSIGN_OR_RETURN(model::Graph graph, model::BuildArchitecture(architecture, section, data.sample_shape, data.classes));
  if (int64_t vocabulary = model::VocabularyOf(graph); vocabulary > 0) TRY(data::CheckIds(data, vocabulary));
  return graph;
}

}  // namespace pare::recipes
