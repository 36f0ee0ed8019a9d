#pragma once

#include "engine/text/jinja/builtins.hpp"

// Python's two ways to format. Literal parts keep their marks, and so do the
// texts that are filled in. Results of a Markup are Markup, with what is filled
// in escaped.

namespace troupe::text::jinja {

/// `format % values`: printf-style.
marked_string format_percent(meter&, const marked_string& format,
                             const runtime_value& values);

/// format.format(...): fields in braces.
marked_string format_braces(meter&, const marked_string& format,
                            const call_arguments&);

} // namespace troupe::text::jinja
