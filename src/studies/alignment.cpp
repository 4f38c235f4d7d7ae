#include "studies/alignment.h"

#include "core/log.h"
#include "report/table.h"

namespace refract {

AlignReport align_models(LoadedModel& a, LoadedModel& b, const std::string& by,
                         const std::string& residual, std::shared_ptr<TokenStream> tokens) {
  AlignOptions options;
  options.by = by;
  options.residual = residual;
  options.stream = std::move(tokens);
  options.context = a.config.data.context;
  // About as many tokens whatever the context.
  options.windows = std::max<int64_t>(1, 32768 / options.context);
  const AlignReport report = align(*a.model, *b.model, options);
  log_info("aligned by {}: distance {} -> {}, {} sweep{}, residual stream: {}", by,
           format_number(report.distance_before), format_number(report.distance_after),
           report.sweeps, report.sweeps == 1 ? "" : "s", report.residual);
  return report;
}

}  // namespace refract
