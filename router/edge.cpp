#include "router/edge.hpp"

#include "actors/runtime/log.hpp"
#include "router/reply_stream.hpp"

#include <boost/asio/post.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <random>
#include <utility>

namespace troupe::router {

namespace {

using api::api_error;

constexpr std::string_view health_path = "/-/healthz";
constexpr std::string_view chat_path = "/v1/chat/completions";
constexpr std::string_view completion_path = "/v1/completions";
constexpr std::string_view tokenize_path = "/tokenize";
constexpr std::string_view detokenize_path = "/detokenize";
constexpr std::string_view embeddings_path = "/v1/embeddings";
constexpr std::string_view score_path = "/v1/score";
constexpr std::string_view rerank_path = "/v1/rerank";
constexpr std::string_view models_path = "/v1/models";
constexpr std::string_view model_path = "/v1/models/";
constexpr std::string_view other_path = "other";

api_error not_found(std::string_view path) {
  return {404, fmt::format("There is nothing at {}.", path),
          "invalid_request_error", "", "not_found"};
}

api_error unauthorized() {
  return {401, "The request needs a valid key: Authorization: Bearer <key>.",
          "invalid_request_error", "", "invalid_api_key"};
}

api_error not_json() {
  return {415, "The body must be sent with content-type: application/json.",
          "invalid_request_error", "", "unsupported_media_type"};
}

api_error busy(std::string message) {
  return {503, std::move(message), "server_error", "", "service_unavailable"};
}

api_error broken() {
  return {500, "The server failed to answer this request.", "server_error", "",
          "internal_error"};
}

/// What the model gives, as engine_kwargs.task has it.
std::string_view task_of(const model_text& model) {
  if (!model.pooled)
    return "generate";
  return model.pooled->what == text::pooled_output::kind::score ? "score"
                                                                : "embed";
}

std::string_view method_label(std::string_view method) {
  for (std::string_view known : {"GET", "POST", "HEAD", "OPTIONS"})
    if (method == known)
      return known;
  return "other";
}

/// True if the method is the one that is allowed, else answers 405.
bool allow(std::string_view allowed, const http::request& request,
           exchange& client) {
  if (request.method == allowed)
    return true;
  client.fail({405, fmt::format("This path takes {} only.", allowed),
               "invalid_request_error", "", "method_not_allowed"},
              {{"allow", std::string{allowed}}});
  return false;
}

/// Other names of endpoints, as vLLM has them.
struct endpoint_alias {
  std::string_view path;
  std::string_view endpoint;
};

constexpr endpoint_alias aliases[] = {{"/score", score_path},
                                      {"/rerank", rerank_path},
                                      {"/v2/rerank", rerank_path}};

/// The endpoint of a path behind its route prefix; empty if there is none.
std::string_view endpoint_of(std::string_view rest) {
  for (auto known : {chat_path, completion_path, tokenize_path, detokenize_path,
                     embeddings_path, score_path, rerank_path, models_path})
    if (rest == known)
      return known;
  for (const auto& alias : aliases)
    if (rest == alias.path)
      return alias.endpoint;
  if (rest.size() > model_path.size() && rest.starts_with(model_path))
    return model_path;
  return {};
}

std::string_view without_root(const std::string& root, std::string_view path) {
  auto inside = path.starts_with(root) && path.size() > root.size() &&
                path[root.size()] == '/';
  return inside ? path.substr(root.size()) : path;
}

/// The target without the last slash of its path, behind the root.
std::string moved_to(const std::string& root, const std::string& target) {
  auto inside = without_root(root, target).size() != target.size();
  auto path = target.substr(0, target.find('?'));
  return (inside ? "" : root) + path.substr(0, path.size() - 1) +
         target.substr(path.size());
}

/// How long the client waits: what it says in x-request-timeout-ms, but no more
/// than the server allows (0 = no limit).
api::api_result<std::chrono::milliseconds>
time_limit_of(const http::request& request, std::chrono::milliseconds server) {
  auto text = request.header("x-request-timeout-ms");
  if (text.empty())
    return server;
  constexpr std::int64_t most = 86'400'000;
  std::int64_t ms = 0;
  auto [end, wrong] =
      std::from_chars(text.data(), text.data() + text.size(), ms);
  if (wrong != std::errc{} || end != text.data() + text.size() || ms < 1 ||
      ms > most)
    return api_error{400,
                     fmt::format("The header x-request-timeout-ms must be a "
                                 "number of milliseconds from 1 to {}.",
                                 most),
                     "invalid_request_error", "", ""};
  std::chrono::milliseconds own{ms};
  return server.count() == 0 ? own : std::min(own, server);
}

std::uint64_t random_seed() {
  std::random_device random;
  return (std::uint64_t{random()} << 32) | random();
}

std::uint64_t unix_seconds() {
  using namespace std::chrono;
  return static_cast<std::uint64_t>(
      duration_cast<seconds>(system_clock::now().time_since_epoch()).count());
}

} // namespace

std::optional<route_place> locate(const protocol::routing_table& table,
                                  std::string_view path) {
  std::optional<route_place> best;
  for (auto& model : table.models) {
    std::string_view prefix = model.route_prefix;
    if (best && best->prefix.size() >= prefix.size())
      continue;
    if (prefix == "/")
      best = {std::string{prefix}, std::string{path}};
    else if (path.starts_with(prefix) && path.size() > prefix.size() &&
             path[prefix.size()] == '/')
      best = {std::string{prefix}, std::string{path.substr(prefix.size())}};
  }
  return best;
}

edge::edge(boost::asio::io_context& io, const options& from,
           std::shared_ptr<dispatcher> replicas,
           std::shared_ptr<wake_queue> sleepers, model_cards::fetch fetch_card)
    : io_(io), text_queue_max_(from.text_queue_max),
      replicas_(std::move(replicas)), sleepers_(std::move(sleepers)),
      admitted_(std::make_shared<admission>(from.requests_max)),
      rules_(std::make_shared<const rules>(
          rules{from.root_path, from.request_timeout, from.access_log})),
      cards_(std::move(fetch_card)), text_(from.text_threads) {
  protocol::router_settings first;
  first.api_keys = from.api_keys;
  accounts_->follow(first);
}

void edge::handle(http::request request, std::shared_ptr<http::reply> reply) {
  auto now = current_rules();
  exchange::context about;
  about.request_id = request_id_of(request);
  about.method = method_label(request.method);
  about.target = request.target;
  about.route = other_path;
  about.counters = counters_;
  about.access_log = now->access_log;
  auto client = std::make_unique<exchange>(std::move(reply), std::move(about));
  if (request.path == health_path)
    return health(request, *client);
  auto account = accounts_->find(request);
  if (!account)
    return client->fail(unauthorized());
  client->set_account(std::move(account));
  route(*now, request, std::move(client));
}

void edge::take(std::shared_ptr<const protocol::routing_table> table) {
  cards_.follow(*table);
  counters_->keep_only(*table);
  auto& said = table->settings;
  admitted_->set_max(said.requests_max);
  accounts_->follow(said);
  auto fresh = std::make_shared<const rules>(
      rules{said.root_path, std::chrono::milliseconds{said.request_timeout_ms},
            said.access_log});
  {
    std::lock_guard lock{mutex_};
    table_ = table;
    rules_ = std::move(fresh);
  }
  wake(*table);
}

/// Who waits for a model that has a replica now, or gets none, goes on. One
/// that sleeps no more, since it was deployed anew, gets one without being
/// woken, be it that a node has to come first.
void edge::wake(const protocol::routing_table& table) {
  for (const auto& key : sleepers_->models()) {
    auto model =
        std::find_if(table.models.begin(), table.models.end(), [&](auto& one) {
          return one.application == key.first && one.model == key.second;
        });
    if (model == table.models.end())
      sleepers_->failed(key, {errc::unavailable, "The model was removed."});
    else if (!model->replicas.empty())
      sleepers_->woken(key);
    else if (model->without_replica != protocol::waking::wakes &&
             !comes_back(*model) && model->status != "PENDING")
      sleepers_->failed(key, {errc::unavailable, not_ready(*model).message});
  }
}

std::shared_ptr<const edge::rules> edge::current_rules() const {
  std::lock_guard lock{mutex_};
  return rules_;
}

std::shared_ptr<const protocol::routing_table> edge::table() const {
  std::lock_guard lock{mutex_};
  return table_;
}

/// Asks for a card that a fetch failed to bring, so that a health check alone
/// can get the model ready.
bool edge::has_card(const std::string& hash) const {
  if (cards_.find(hash))
    return true;
  cards_.get(hash, [](const model_cards::text_result&) {});
  return false;
}

bool edge::ready() const {
  auto known = table();
  if (stopping_ || !known || replicas_->closed())
    return false;
  return std::any_of(known->models.begin(), known->models.end(),
                     [this](const protocol::model_route& model) {
                       if (model.replicas.empty())
                         return model.without_replica ==
                                protocol::waking::wakes;
                       return has_card(model.replicas.front().card_hash);
                     });
}

void edge::stop() {
  cards_.stop();
  sleepers_->close({errc::unavailable, "The router is stopping."});
  text_.join();
}

void edge::route(const rules& now, http::request& request,
                 std::unique_ptr<exchange> client) {
  auto known = table();
  if (!known) {
    client->fail(busy("The service is starting."));
    return;
  }
  auto place = locate(*known, without_root(now.root_path, request.path));
  auto endpoint = place ? endpoint_of(place->rest) : std::string_view{};
  if (endpoint.empty()) {
    if (place && place->rest.ends_with('/') &&
        !endpoint_of(place->rest.substr(0, place->rest.size() - 1)).empty())
      client->respond(307, "text/plain; charset=utf-8", "",
                      {{"location", moved_to(now.root_path, request.target)}});
    else
      client->fail(not_found(request.path));
    return;
  }
  client->set_route(endpoint);
  bool posts = endpoint != models_path && endpoint != model_path;
  if (!allow(posts ? "POST" : "GET", request, *client))
    return;
  if (posts)
    begin(endpoint, place->prefix, now, request, std::move(client));
  else if (endpoint == models_path)
    models(place->prefix, *client);
  else
    model(place->prefix,
          std::string_view{place->rest}.substr(model_path.size()), *client);
}

void edge::health(const http::request& request, exchange& client) const {
  client.set_route(health_path);
  client.set_poll();
  if (!allow("GET", request, client))
    return;
  auto ok = ready();
  client.respond(ok ? 200 : 503, "text/plain; charset=utf-8",
                 ok          ? "success"
                 : stopping_ ? "stopping"
                             : "no model is ready");
}

void edge::models(const std::string& prefix, exchange& client) const {
  std::vector<api::model_entry> entries;
  auto known = table();
  for (auto& model : known->models)
    if (model.route_prefix == prefix)
      entries.push_back(entry(model));
  client.respond(200, "application/json", api::models_body(entries));
}

void edge::model(const std::string& prefix, std::string_view id,
                 exchange& client) const {
  auto known = table();
  for (auto& model : known->models)
    if (model.route_prefix == prefix && model.model == id) {
      client.respond(200, "application/json", api::model_body(entry(model)));
      return;
    }
  client.fail({404, fmt::format("The model \"{}\" does not exist here.", id),
               "invalid_request_error", "model", "model_not_found"});
}

api::model_entry edge::entry(const protocol::model_route& model) const {
  auto text = cards_.find(model.application, model.model);
  if (!text)
    return {model.model, model.created};
  return {model.model, model.created, text->max_model_len, task_of(*text)};
}

void edge::begin(std::string_view endpoint, std::string prefix,
                 const rules& now, http::request& request,
                 std::unique_ptr<exchange> client) {
  if (!is_json(request)) {
    client->fail(not_json());
    return;
  }
  if (stopping_) {
    client->fail(busy("The server is shutting down."));
    return;
  }
  auto limit = time_limit_of(request, now.request_timeout);
  if (!limit) {
    client->fail(limit.error());
    return;
  }
  auto account = client->account();
  if (auto refused = account->take_request(std::chrono::steady_clock::now())) {
    client->fail(*refused);
    return;
  }
  auto ticket = admission::enter(admitted_);
  if (!ticket ||
      (accounts_->several() && !ticket.join("key " + account->name()))) {
    client->fail(busy("Too many requests are in flight."));
    return;
  }
  client->hold(std::move(ticket));
  auto job = std::make_shared<pending>();
  job->request_id = client->request_id();
  job->arrived = client->arrived();
  job->time_limit = *limit;
  job->account = std::move(account);
  job->client =
      std::make_shared<waiting_client>(io_, std::move(client), job->time_limit);
  job->endpoint = endpoint;
  job->prefix = std::move(prefix);
  job->session = request.header("x-session-id");
  job->body = std::move(request.body);
  job->client->watch();
  post_text(job, [this, job] { read(job); });
}

// Exceptions of what is called there (memory) end the request, not the process.
void edge::post_text(pending_ptr job, std::function<void()> work) {
  if (text_queue_.fetch_add(1) >= text_queue_max_) {
    --text_queue_;
    job->client->fail(busy("Too many requests wait to be read."));
    return;
  }
  boost::asio::post(
      text_, [this, job = std::move(job), work = std::move(work)] {
        --text_queue_;
        try {
          work();
        } catch (const std::exception& e) {
          spdlog::error("router: reading a request: {}", e.what());
          job->client->fail(broken());
        }
      });
}

void edge::read(const pending_ptr& job) {
  if (!job->client->waits())
    return;
  auto wrong = parse(*job);
  job->body = {};
  if (wrong)
    job->client->fail(*wrong);
  else
    find(job);
}

std::optional<api_error> edge::parse(pending& job) {
  bool ids = job.endpoint == detokenize_path;
  if (ids || job.endpoint == tokenize_path) {
    auto request = parse_text_request(ids, job.body);
    if (!request)
      return request.error();
    job.wanted = model_of(*request);
    job.request = std::move(*request);
    return std::nullopt;
  }
  auto take = [&job](auto&& request) -> std::optional<api_error> {
    if (!request)
      return request.error();
    auto& shared = shared_part(*request);
    job.wanted = shared.model;
    job.client->set_user(shared.user);
    heed_urgency(job, shared.priority, shared.timeout_s);
    job.request = std::move(*request);
    return std::nullopt;
  };
  if (job.endpoint == embeddings_path)
    return take(parse_pooled_request(pooled_endpoint::embeddings, job.body));
  if (job.endpoint == score_path)
    return take(parse_pooled_request(pooled_endpoint::score, job.body));
  if (job.endpoint == rerank_path)
    return take(parse_pooled_request(pooled_endpoint::rerank, job.body));
  return take(parse_request(job.endpoint == chat_path, job.body));
}

void edge::heed_urgency(pending& job, std::int32_t priority,
                        const std::optional<double>& timeout_s) {
  job.priority = std::max(priority, job.account->priority());
  if (!timeout_s)
    return;
  std::chrono::milliseconds limit{std::max<std::int64_t>(
      static_cast<std::int64_t>(std::ceil(*timeout_s * 1e3)), 1)};
  if (job.time_limit.count() == 0 || limit < job.time_limit) {
    job.time_limit = limit;
    job.client->shorten(limit);
  }
}

void edge::find(const pending_ptr& job) {
  job->table = table();
  auto model = find_model(*job->table, job->prefix, job->wanted);
  if (!model) {
    job->client->fail(model.error());
    return;
  }
  job->model = *model;
  if (job->table->models.size() > 1 && !std::exchange(job->joined, true) &&
      !job->client->join("model " + job->model->application + "/" +
                         job->model->model)) {
    job->client->fail(busy("Too many requests for this model are in flight."));
    return;
  }
  if (job->model->replicas.empty() &&
      job->model->without_replica == protocol::waking::wakes) {
    wait_to_wake(job);
    return;
  }
  if (job->model->replicas.empty()) {
    auto last = cards_.find(job->model->application, job->model->model);
    if (last && comes_back(*job->model))
      send(job, last);
    else
      job->client->fail(not_ready(*job->model));
    return;
  }
  job->card_hash = card_for(*job->model);
  cards_.get(job->card_hash, [this, job](model_cards::text_result text) {
    if (text)
      post_text(job, [this, job, text = *text] { send(job, text); });
    else if (!std::exchange(job->found_again, true) && table() != job->table)
      post_text(job, [this, job] { find(job); }); // it has just left the table
    else
      job->client->fail(busy("The model's text side is not ready."));
  });
}

/// The table can be an older one by now: then nobody else would wake it.
void edge::wait_to_wake(const pending_ptr& job) {
  wake_queue::waiter who;
  who.waits = [job] { return job->client->waits(); };
  who.go_on = [this, job] { post_text(job, [this, job] { find(job); }); };
  who.fail = [job](const error& why) { job->client->fail(busy(why.message)); };
  auto taken = sleepers_->add({job->model->application, job->model->model},
                              std::move(who), std::chrono::steady_clock::now());
  if (!taken)
    job->client->fail(busy("Too many requests wait for the model to wake."));
  else if (auto newest = table(); newest != job->table)
    wake(*newest);
}

// While a model changes its replicas may have two cards. Each gets its share of
// the requests; one that is not here yet waits until it is.
std::string edge::card_for(const protocol::model_route& model) const {
  auto count = model.replicas.size();
  auto first = turn_++ % count;
  for (std::size_t i = 0; i < count; ++i) {
    auto& hash = model.replicas[(first + i) % count].card_hash;
    if (cards_.find(hash))
      return hash;
  }
  return model.replicas[first].card_hash;
}

std::uint64_t edge::next_turn(const protocol::model_route& model) {
  std::scoped_lock lock{turns_mutex_};
  return seed_turns_[{model.application, model.model}]++;
}

void edge::send(const pending_ptr& job,
                const std::shared_ptr<const model_text>& text) {
  if (job->client->waits())
    std::visit([&](auto& request) { send(job, request, text); }, job->request);
}

// Nothing if it has no limit; else at least a millisecond.
std::optional<std::chrono::milliseconds> edge::time_left(const pending& job) {
  using namespace std::chrono;
  if (job.time_limit.count() == 0)
    return std::nullopt;
  auto gone = duration_cast<milliseconds>(steady_clock::now() - job.arrived);
  return std::max(job.time_limit - gone, milliseconds{1});
}

generation_context edge::context_of(const pending& job) const {
  using namespace std::chrono;
  generation_context out;
  out.request_id = job.request_id;
  out.created = unix_seconds();
  if (auto left = time_left(job))
    out.deadline_ms = static_cast<std::uint64_t>(left->count());
  return out;
}

void edge::send(const pending_ptr& job, any_request& request,
                const std::shared_ptr<const model_text>& text) {
  auto context = context_of(*job);
  context.seed = random_seed();
  if (text->defaults.seed && !shared_part(request).seed)
    context.turn = next_turn(*job->model);
  auto made = prepare(std::move(request), *job->model, text, context);
  if (!made)
    return job->client->fail(made.error());
  std::uint64_t tokens = 0;
  for (const auto& prompt : made->plan.prompts)
    tokens += prompt.size();
  submit(job, std::move(made->what),
         std::make_unique<answer>(std::move(made->plan)), tokens);
}

void edge::send(const pending_ptr& job, pooled_request& request,
                const std::shared_ptr<const model_text>& text) {
  auto made = prepare(std::move(request), *job->model, *text, context_of(*job));
  if (!made)
    return job->client->fail(made.error());
  std::uint64_t tokens = 0;
  for (const auto& record : made->what.choices)
    tokens += record.prompt.size();
  submit(job, std::move(made->what),
         std::make_unique<pooled_answer>(std::move(made->plan)), tokens);
}

void edge::send(const pending_ptr& job, text_request& request,
                const std::shared_ptr<const model_text>& text) {
  auto body = answer_text(request, *text);
  if (!body)
    return job->client->fail(body.error());
  if (auto client = job->client->take())
    client->respond(200, "application/json", std::move(*body));
}

void edge::submit(const pending_ptr& job, submission what,
                  std::unique_ptr<reply_content> content,
                  std::uint64_t prompt_tokens) {
  if (auto refused = job->account->take_prompt(
          prompt_tokens, std::chrono::steady_clock::now()))
    return job->client->fail(*refused);
  what.card_hash = job->card_hash;
  what.session = job->session;
  if (accounts_->several())
    what.tenant = job->account->name();
  what.weight = job->account->weight();
  what.choices_per_replica = job->account->choices_per_replica();
  what.priority = job->priority;
  if (auto left = time_left(*job)) {
    what.time_limit = *left;
    what.has_limit = true;
  }
  auto client = job->client->take();
  if (!client)
    return;
  auto counters = counters_->of(job->model->application, job->model->model);
  auto stream = std::make_shared<reply_stream>(
      io_, reply_stream::parts{std::move(client), std::move(content), replicas_,
                               std::move(counters), job->time_limit});
  stream->start(std::move(what));
}

} // namespace troupe::router
