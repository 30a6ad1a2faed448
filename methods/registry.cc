#include "methods/registry.h"

#include "methods/one_shot_prune.h"

namespace pare::methods {
namespace {

constexpr Method kMethods[] = {
    {"prune", "remove the weights of lowest score: magnitude or random, per layer or over all layers", OneShotPrune},
};

}  // namespace

std::span<const Method> Methods() { return kMethods; }

const Method* FindMethod(std::string_view name) {
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace pare::methods
