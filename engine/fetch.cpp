#include "engine/engine.hpp"
#include "engine/environment.hpp"
#include "engine/weights/download/fetch_model.hpp"

#include <utility>

namespace troupe::engine {

namespace {

using stage = download::fetch_progress::stage;

std::string doing(const std::string& source,
                  const download::fetch_progress& now) {
  if (now.now == stage::asking)
    return "asking for " + source;
  auto what = source + ": " + now.file;
  if (now.now == stage::waiting)
    return "waiting for another process to fetch " + what;
  return (now.now == stage::there ? "found " : "fetching ") + what;
}

/// The sources of one engine, one after the other.
class source_fetcher {
public:
  source_fetcher(const options& o, const fetch_progress& progress,
                 fetch_from from)
      : options_(o), progress_(progress), from_(from) {
    // nop
  }

  /// Puts a path of this machine in the place of a source; nothing stays
  /// nothing.
  result<void> fetch(std::filesystem::path& source, download::wanted what) {
    if (source.empty())
      return {};
    auto name = source.string();
    auto reference = download::parse_model_reference(name);
    if (!reference)
      return reference.error();
    if (std::holds_alternative<std::filesystem::path>(*reference))
      return {};
    auto settings = download::read_fetch_settings(environment_of(options_));
    if (!settings)
      return settings.error();
    settings->offline |= from_ == fetch_from::caches_alone;
    download::fetch_watch watch;
    watch.is_cancelled = [] { return false; };
    watch.progress = [&](const download::fetch_progress& now) {
      progress_(doing(name, now), now.bytes_done, now.bytes_total);
    };
    auto fetched = download::fetch_model(*reference, what, *settings, watch);
    if (!fetched)
      return fetched.error();
    source = fetched->path;
    if (!fetched->note.empty())
      notes.push_back(fetched->note);
    return {};
  }

  std::vector<std::string> notes;

private:
  const options& options_;
  const fetch_progress& progress_;
  fetch_from from_;
};

} // namespace

result<fetched_options> fetch(options o, const fetch_progress& progress,
                              fetch_from from) {
  source_fetcher sources{o, progress, from};
  auto model = o.model;
  auto tokenizer = o.tokenizer;
  if (auto done = sources.fetch(model, download::wanted::model); !done)
    return done.error();
  if (auto done = sources.fetch(tokenizer, download::wanted::tokenizer); !done)
    return done.error();
  auto notes = std::move(sources.notes);
  o.model = std::move(model);
  o.tokenizer = std::move(tokenizer);
  return fetched_options{std::move(o), std::move(notes)};
}

} // namespace troupe::engine
