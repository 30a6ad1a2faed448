// Measurements: which numbers belong to which checkpoint of a job. Pure functions over the state, shared by the registry
// (evidence of a version) and the report.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "coordinator/state.h"

namespace pare::coordinator {

// Results of the evaluations and measure steps of one checkpoint; null: not measured.
struct Measured {
  Json validation, test;
  std::vector<Json> speeds;  // of measure steps, in the plan's order
};
// By the checkpoint's artifact, in hexadecimal digits.
using Measurements = std::map<std::string, Measured>;
Measurements MeasurementsOf(const State& state, const Job& job);

// The checkpoint's artifact of a step that made one, or that evaluated one. kNotFound: no such step; kConflict: it has not
// finished, or is neither.
Result<Digest> CheckpointOf(const State& state, const Job& job, const std::string& step);

// What a version of a model rests on (storage::EvidenceOf).
Json EvidenceOf(const State& state, const Job& job, const Digest& checkpoint);

// The text at a field, or empty.
std::string TextAt(const Json& object, const char* field);
// The value at a path of object fields, or null.
Json At(const Json& object, std::initializer_list<const char*> path);

}  // namespace pare::coordinator
