#pragma once

#include "engine/text/jinja/ast.hpp"
#include "engine/text/jinja/builtins.hpp"

namespace troupe::text::jinja {

/// Python's + - * / // % ** for numbers, texts (with % as a format) and lists.
runtime_value arithmetic(meter&, binary_op, const runtime_value&,
                         const runtime_value&);

/// A number with a sign in front.
runtime_value with_sign(const runtime_value&, bool negative);

} // namespace troupe::text::jinja
