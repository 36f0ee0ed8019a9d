#include "bench/policies/step_time.hpp"

#include <algorithm>
#include <cmath>
#include <simdjson.h>

namespace troupe::bench {

double step_time::prompt(double tokens, double cached, double rows) const {
  auto left = std::max(tokens - cached, 1.);
  return of(left, 1, left * (tokens + cached) / 2, 0) +
         (std::ceil(left / rows) - 1) * step_s;
}

double step_time::output(double tokens, double context, double at_once) const {
  return tokens * of(at_once, at_once, 0, at_once * context) / at_once;
}

result<step_time> read_step_time(const std::filesystem::path& path) {
  simdjson::dom::parser parser;
  simdjson::dom::element file;
  if (parser.load(path.string()).get(file))
    return error{errc::not_found, "cannot read " + path.string()};
  step_time out;
  auto fit = file["fit"];
  if (fit["step_s"].get(out.step_s) || fit["row_s"].get(out.row_s) ||
      fit["draw_s"].get(out.draw_s) ||
      fit["prompt_key_s"].get(out.prompt_key_s) ||
      fit["stream_key_s"].get(out.stream_key_s))
    return error{errc::invalid_argument, path.string() + " has no fit"};
  return out;
}

} // namespace troupe::bench
