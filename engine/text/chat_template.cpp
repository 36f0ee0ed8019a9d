#include "engine/text/chat_template.hpp"

#include "engine/text/jinja/parser.hpp"
#include "engine/text/jinja/renderer.hpp"
#include "engine/text/jinja/runtime_value.hpp"

#include <utility>

namespace troupe::text {

namespace {

constexpr std::size_t source_bytes_max = 1u << 20;

class compiled_template final : public chat_template {
public:
  compiled_template(jinja::block program, template_limits limits)
      : program_(std::move(program)), limits_(limits) {
    // nop
  }

  result<text_pieces> render(const value::map& globals) const override {
    try {
      return jinja::render(program_, globals, limits_).pieces();
    } catch (const jinja::render_error& e) {
      return error{e.code, "chat template: " + e.message};
    }
  }

private:
  jinja::block program_;
  template_limits limits_;
};

} // namespace

result<std::shared_ptr<const chat_template>>
chat_template::compile(std::string_view source, template_limits limits) {
  if (source.size() > source_bytes_max)
    return error{errc::limit, "chat template: larger than 1 MiB"};
  auto program = jinja::parse(source, limits.depth_max);
  if (!program)
    return error{program.error().code,
                 "chat template, " + program.error().message};
  std::shared_ptr<const chat_template> out =
      std::make_shared<compiled_template>(std::move(*program), limits);
  return out;
}

} // namespace troupe::text
