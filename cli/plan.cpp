#include "node/plan.hpp"

#include "cli/ask_head.hpp"
#include "cli/load_config.hpp"
#include "config/serve_config.hpp"

#include <fmt/format.h>

namespace troupe::cli {

namespace {

std::optional<std::vector<node::plan_node>>
nodes_of(const plan_arguments& args) {
  if (args.admin.empty())
    return node::this_machine();
  admin_arguments where;
  where.admin = args.admin;
  auto status = ask_head(where, "GET", "/api/status");
  if (!status)
    return std::nullopt;
  auto nodes = node::nodes_of_status(*status);
  if (nodes)
    return std::move(*nodes);
  fmt::print(stderr, "{}\n", nodes.error().message);
  return std::nullopt;
}

/// Where the file asks for each of the models.
void tell_places(const config::serve_config& file,
                 std::vector<node::model_plan>& plans) {
  for (auto& plan : plans)
    for (const auto& application : file.applications)
      for (const auto& model : application.models)
        if (application.name == plan.application &&
            model.model_id == plan.model)
          plan.where = model.where;
}

} // namespace

int plan(const plan_arguments& args) {
  auto loaded = load_config(args.config, args.admin.empty()
                                             ? troupe::config::purpose::run
                                             : troupe::config::purpose::deploy);
  if (!report(loaded.findings))
    return 2;
  auto nodes = nodes_of(args);
  if (!nodes)
    return 1;
  auto wanted = controller::to_deployment(loaded.values, args.cpu_only, 0);
  auto plans = node::make_plan(wanted, *nodes, node::measure_with_engine);
  tell_places(loaded.values, plans);
  fmt::print("{}", node::to_text(plans, *nodes));
  return node::has_errors(plans) ? 1 : 0;
}

} // namespace troupe::cli
