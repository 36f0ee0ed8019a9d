#pragma once

#include "engine/text/chat_template.hpp"
#include "engine/text/jinja/ast.hpp"
#include "engine/text/jinja/marked_string.hpp"

namespace troupe::text::jinja {

/// One rendering of a parsed template. Throws render_error.
marked_string render(const block& program, const value::map& globals,
                     const template_limits&);

} // namespace troupe::text::jinja
