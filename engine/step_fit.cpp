#include "engine/step_fit.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::engine {

namespace {

constexpr double memory_s = 2;
constexpr double step_in_rows = 16;
constexpr double shape_share = .01; ///< what the usual shape weighs
constexpr double few_rows = 4;
constexpr double many_rows = 256;
constexpr double seen_min = .1; ///< steps, less the older they are

bool is_near(double rows, double size) {
  constexpr double times = 3;
  return rows * times >= size && rows <= size * times;
}

std::uint32_t microseconds(double seconds) {
  constexpr double longest_s = 4000; // fits
  return static_cast<std::uint32_t>(
      std::ceil(std::min(seconds, longest_s) * 1e6));
}

} // namespace

void step_fit::step(std::uint64_t rows, std::chrono::duration<double> time) {
  if (rows == 0 || time.count() <= 0)
    return;
  auto x = static_cast<double>(rows);
  auto weight = 1 / ((step_in_rows + x) * (step_in_rows + x));
  auto kept = std::exp(-time.count() / memory_s);
  auto fade = [&](double& sum, double more) {
    sum = sum * kept + weight * more;
  };
  fade(weight_, 1);
  fade(x_, x);
  fade(xx_, x * x);
  fade(y_, time.count());
  fade(xy_, x * time.count());
  few_ = few_ * kept + (is_near(x, few_rows) ? 1 : 0);
  many_ = many_ * kept + (is_near(x, many_rows) ? 1 : 0);
}

// The normal equations, with one thing more to keep: a = step_in_rows x b.
double step_fit::seconds(double rows) const {
  if (weight_ <= 0)
    return 0;
  auto shape = shape_share * weight_;
  auto aa = weight_ + shape;
  auto ab = x_ - shape * step_in_rows;
  auto bb = xx_ + shape * step_in_rows * step_in_rows;
  auto det = aa * bb - ab * ab;
  auto a = (y_ * bb - xy_ * ab) / det;
  auto b = (xy_ * aa - y_ * ab) / det;
  if (a < 0)
    return xy_ / xx_ * rows;
  if (b < 0)
    return y_ / weight_;
  return a + b * rows;
}

std::uint32_t step_fit::few_rows_us() const {
  return few_ < seen_min ? 0 : microseconds(seconds(few_rows));
}

std::uint32_t step_fit::many_rows_us() const {
  return many_ < seen_min ? 0 : microseconds(seconds(many_rows));
}

} // namespace troupe::engine
