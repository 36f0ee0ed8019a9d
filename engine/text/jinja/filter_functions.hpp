#pragma once

#include "engine/text/jinja/builtins.hpp"

#include <string_view>

// What filters do that is more than a line. Arguments are those of Jinja's
// filters of these names.

namespace troupe::text::jinja {

/// A member by a path such as "function.name" or "0", or by a number.
runtime_value member_by_path(const runtime_value&, const runtime_value& path);

/// A text in small letters; anything else as it is.
runtime_value without_case(const runtime_value&);

// -- lists --------------------------------------------------------------------

using filter_function = runtime_value(meter&, const runtime_value&,
                                      const call_arguments&);

filter_function sort_filter;
filter_function dictsort_filter;
filter_function unique_filter;
filter_function reverse_filter;
filter_function map_filter;
filter_function sum_filter;
filter_function batch_filter;
filter_function slice_filter;
filter_function groupby_filter;
filter_function join_filter;
filter_function first_filter;
filter_function last_filter;

/// select, reject, selectattr, rejectattr.
runtime_value selected(meter&, const runtime_value& over, const call_arguments&,
                       bool by_attribute, bool keep);

/// min and max.
runtime_value extreme(meter&, const runtime_value& over, const call_arguments&,
                      bool largest);

runtime_value length_of(const runtime_value&);
runtime_value items_of_dict(const dict&);

// -- numbers ------------------------------------------------------------------

filter_function int_filter;
filter_function float_filter;
filter_function abs_filter;
filter_function round_filter;

// -- text ---------------------------------------------------------------------

filter_function indent_filter;
filter_function truncate_filter;
filter_function tojson_filter;
filter_function urlencode_filter;
filter_function format_filter;

} // namespace troupe::text::jinja
