// What tch's tracing cannot say of a module: the names of its inputs, and several outputs.
#include "boundary.h"

#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/ir.h>

SpcStatus spc_trace_signature(
    const char* const* names, size_t inputs, const SpcTensor* outputs, size_t count, char** message) {
  return spc::guarded(message, [&] {
    const auto state = torch::jit::tracer::getTracingState();
    TORCH_CHECK(state != nullptr, "no trace is being recorded");
    auto& graph = *state->graph;
    // Input 0 is the module itself.
    TORCH_CHECK(graph.inputs().size() == inputs + 1, "the trace has ", graph.inputs().size() - 1, " inputs");
    for (size_t i = 0; i < inputs; ++i) {
      graph.inputs()[i + 1]->setDebugName(names[i]);
    }
    std::vector<torch::jit::Value*> values;
    for (const auto& output : spc::tensors(outputs, count)) {
      values.push_back(state->getOutput(output, values.size()));
    }
    // A method returns one value.
    graph.registerOutput(values.size() == 1 ? values[0] : graph.insertNode(graph.createTuple(values))->output());
  });
}
