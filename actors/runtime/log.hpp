#pragma once

// spdlog, for files that write to the log (set up in logging.hpp).

#include <fmt/format.h>
#include <spdlog/spdlog.h>

// A line's text is made by fmt's formatter. spdlog asks for the instance that
// libfmt has, but fmt's header does not say that it has it: without this every
// file that logs compiles the formatter again, 2 s each.
extern template void fmt::detail::vformat_to<char>(fmt::detail::buffer<char>&,
                                                   fmt::string_view,
                                                   fmt::format_args,
                                                   fmt::detail::locale_ref);
