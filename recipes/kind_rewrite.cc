// The step kind of a method: all that it is comes from its entry in methods/registry.h.
#include "recipes/kinds.h"

namespace pare::recipes {

Kind RewriteKind(const methods::Method& method) {
  Kind kind;
  kind.name = method.name;
  kind.fields = method.fields;
  kind.help = method.help;
  kind.may_be_empty = true;
  kind.check = [&method](CheckContext& context, const Json& section, const std::string& pointer) {
    if (method.check == nullptr) return;
    for (const methods::Problem& problem : method.check(section)) {
      bool whole = problem.field.empty();
      context.Fail(whole ? pointer : pointer + "/" + Escaped(problem.field), (whole ? std::string(method.name) : problem.field) + ": " + problem.text);
    }
  };
  kind.resolve = [&method](ResolveContext& context, Json& section, const std::string& pointer) {
    std::string name(method.name);
    FillDefaults(name, section);
    if (FindField(name, "targets") != nullptr) section["tensors"] = context.Tensors(section, pointer);
  };
  kind.plan = [&method](Chain& chain, const Json& section) {
    Json params = section;
    params.erase("targets");
    params.erase("ignore");
    if (!chain.Become(method.outline(chain.outline(), params))) return;
    chain.Advance(std::string(method.name), std::move(params), {}, method.reads_data);
  };
  return kind;
}

}  // namespace pare::recipes
