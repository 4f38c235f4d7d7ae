#include "studies/curvature/precise_model.h"

#include <utility>

#include "core/choices.h"
#include "transforms/model_builder.h"

namespace refract {

at::ScalarType derivative_dtype(const std::string& precision, const LoadedModel& loaded) {
  require_choice("--precision", precision, {"auto", "float64", "fp32"});
  if (precision == "float64") return at::kDouble;
  if (precision == "fp32") return at::kFloat;
  return loaded.rules.empty() && loaded.model->device().is_cpu() ? at::kDouble : at::kFloat;
}

void make_precise(LoadedModel& loaded, at::ScalarType dtype) {
  TransformedModel fresh =
      build_model(loaded.config.model, loaded.config.transform, loaded.folder.string());
  Decoder &from = *loaded.model, &to = *fresh.decoder;
  to.allocate(from.device(), dtype, dtype);
  to.isolate_documents(from.document_token());
  for (const Parameter& parameter : to.arena().parameters())
    to.arena().value(&parameter).copy_(from.arena().value(from.arena().find(parameter.name)));
  for (BufferStore::Buffer& buffer : to.buffers().all())
    buffer.tensor.copy_(from.buffers().find(buffer.name)->tensor);
  loaded.model = std::move(fresh.decoder);
}

}  // namespace refract
