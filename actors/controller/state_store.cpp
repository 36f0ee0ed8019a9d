#include "actors/controller/state_store.hpp"

#include <algorithm>
#include <fcntl.h>
#include <functional>
#include <sqlite3.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe::controller {

namespace {

constexpr int schema_version = 4;
constexpr int versions_kept = 100;

struct close_database {
  void operator()(sqlite3* db) const {
    sqlite3_close_v2(db);
  }
};

struct finalize_statement {
  void operator()(sqlite3_stmt* statement) const {
    sqlite3_finalize(statement);
  }
};

using database = std::unique_ptr<sqlite3, close_database>;
using statement = std::unique_ptr<sqlite3_stmt, finalize_statement>;

std::string text_of(sqlite3_stmt* row, int column) {
  const auto* text = sqlite3_column_text(row, column);
  auto size = static_cast<std::size_t>(sqlite3_column_bytes(row, column));
  return {reinterpret_cast<const char*>(text), size};
}

class sqlite_store final : public state_store {
public:
  sqlite_store(database db, std::string name)
      : db_(std::move(db)), name_(std::move(name)) {
    // nop
  }

  result<void> prepare();
  result<std::uint64_t> save(codec::bytes_view record) override;
  result<std::optional<stored_deployment>> latest() override;
  result<std::uint64_t> next_epoch() override;
  result<void> remember_nodes(const std::vector<std::string>& names) override;
  result<std::vector<std::string>> remembered_nodes() override;
  result<void> remember_targets(const std::vector<scale_target>&) override;
  result<std::vector<scale_target>> remembered_targets() override;
  result<void>
  remember_asked(const std::vector<protocol::asked_node>&) override;
  result<std::vector<protocol::asked_node>> asked_nodes() override;

private:
  error failure(const char* doing) const {
    return {errc::io, "state store " + name_ + ": " + doing + ": " +
                          sqlite3_errmsg(db_.get())};
  }

  result<void> run(const char* sql, const char* doing) {
    if (sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK)
      return failure(doing);
    return {};
  }

  result<statement> compile(const char* sql) {
    sqlite3_stmt* raw = nullptr;
    if (sqlite3_prepare_v2(db_.get(), sql, -1, &raw, nullptr) != SQLITE_OK)
      return failure("preparing a statement");
    return statement{raw};
  }

  /// All of it, or nothing.
  result<void> transaction(const std::function<result<void>()>& work);

  result<int> stored_schema();
  result<void> migrate(int from);
  result<void> insert_node(const std::string& name);
  result<void> insert_target(const scale_target&);
  result<void> insert_asked(const protocol::asked_node&);
  result<void> insert_deployment(codec::bytes_view, std::uint64_t& version);

  database db_;
  std::string name_;
};

result<int> sqlite_store::stored_schema() {
  auto query = compile("PRAGMA user_version");
  if (!query)
    return query.error();
  if (sqlite3_step(query->get()) != SQLITE_ROW)
    return failure("reading its version");
  return sqlite3_column_int(query->get(), 0);
}

result<void> sqlite_store::prepare() {
  // An exclusive lock, taken at once: two heads on one store would disagree.
  if (auto done = run("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=EXTRA;"
                      "BEGIN EXCLUSIVE; COMMIT",
                      "opening (is another process using it?)");
      !done)
    return done;
  auto schema = stored_schema();
  if (!schema)
    return schema.error();
  if (*schema > schema_version)
    return error{errc::unsupported, "state store " + name_ +
                                        ": written by a newer version (" +
                                        std::to_string(*schema) + ")"};
  if (*schema == schema_version)
    return {};
  return transaction([this, &schema] { return migrate(*schema); });
}

/// Version 1 kept deployments that were never started by themselves, in a form
/// that nothing reads any more; their numbers are not given again. Version 2
/// had no targets, version 3 no nodes that were asked for.
result<void> sqlite_store::migrate(int from) {
  if (auto done = run("CREATE TABLE asked_nodes("
                      " name TEXT PRIMARY KEY NOT NULL, type TEXT NOT NULL);"
                      "PRAGMA user_version=4;",
                      "making its tables");
      !done || from == 3)
    return done;
  if (auto done = run("CREATE TABLE targets("
                      " application TEXT NOT NULL, model TEXT NOT NULL,"
                      " replicas INTEGER NOT NULL,"
                      " PRIMARY KEY(application, model));",
                      "making its tables");
      !done || from == 2)
    return done;
  if (auto done = run("CREATE TABLE IF NOT EXISTS deployments("
                      " version INTEGER PRIMARY KEY AUTOINCREMENT,"
                      " record BLOB NOT NULL);"
                      "CREATE TABLE head("
                      " only INTEGER PRIMARY KEY CHECK(only = 1),"
                      " epoch INTEGER NOT NULL);"
                      "CREATE TABLE nodes(name TEXT PRIMARY KEY NOT NULL);",
                      "making its tables");
      !done)
    return done;
  if (from == 1)
    return run("DELETE FROM deployments",
               "forgetting deployments of version 1");
  return {};
}

result<void>
sqlite_store::transaction(const std::function<result<void>()>& work) {
  if (auto begun = run("BEGIN", "beginning to write"); !begun)
    return begun;
  auto done = work();
  if (done)
    done = run("COMMIT", "writing");
  if (!done)
    sqlite3_exec(db_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  return done;
}

result<std::uint64_t> sqlite_store::next_epoch() {
  if (auto done = run("INSERT INTO head(only, epoch) VALUES(1, 1)"
                      " ON CONFLICT(only) DO UPDATE SET epoch = epoch + 1",
                      "raising the head's epoch");
      !done)
    return done.error();
  auto query = compile("SELECT epoch FROM head");
  if (!query)
    return query.error();
  if (sqlite3_step(query->get()) != SQLITE_ROW)
    return failure("reading the head's epoch");
  return static_cast<std::uint64_t>(sqlite3_column_int64(query->get(), 0));
}

result<void>
sqlite_store::remember_nodes(const std::vector<std::string>& names) {
  return transaction([&]() -> result<void> {
    if (auto done = run("DELETE FROM nodes", "forgetting nodes"); !done)
      return done;
    for (const auto& name : names)
      if (auto done = insert_node(name); !done)
        return done;
    return {};
  });
}

result<void> sqlite_store::insert_node(const std::string& name) {
  auto insert = compile("INSERT OR IGNORE INTO nodes(name) VALUES(?)");
  if (!insert)
    return insert.error();
  if (sqlite3_bind_text64(insert->get(), 1, name.data(), name.size(),
                          SQLITE_STATIC, SQLITE_UTF8) != SQLITE_OK ||
      sqlite3_step(insert->get()) != SQLITE_DONE)
    return failure("remembering a node");
  return {};
}

result<std::vector<std::string>> sqlite_store::remembered_nodes() {
  auto query = compile("SELECT name FROM nodes ORDER BY name");
  if (!query)
    return query.error();
  std::vector<std::string> out;
  auto step = sqlite3_step(query->get());
  for (; step == SQLITE_ROW; step = sqlite3_step(query->get()))
    out.push_back(text_of(query->get(), 0));
  if (step != SQLITE_DONE)
    return failure("reading the remembered nodes");
  return out;
}

result<void>
sqlite_store::remember_targets(const std::vector<scale_target>& targets) {
  return transaction([&]() -> result<void> {
    if (auto done = run("DELETE FROM targets", "forgetting targets"); !done)
      return done;
    for (const auto& target : targets)
      if (auto done = insert_target(target); !done)
        return done;
    return {};
  });
}

result<void> sqlite_store::insert_target(const scale_target& target) {
  auto insert = compile("INSERT INTO targets(application, model, replicas) "
                        "VALUES(?, ?, ?)");
  if (!insert)
    return insert.error();
  auto bind = [&](int place, const std::string& text) {
    return sqlite3_bind_text64(insert->get(), place, text.data(), text.size(),
                               SQLITE_STATIC, SQLITE_UTF8) == SQLITE_OK;
  };
  if (!bind(1, target.application) || !bind(2, target.model) ||
      sqlite3_bind_int64(insert->get(), 3, target.replicas) != SQLITE_OK ||
      sqlite3_step(insert->get()) != SQLITE_DONE)
    return failure("remembering a target");
  return {};
}

result<std::vector<scale_target>> sqlite_store::remembered_targets() {
  auto query = compile("SELECT application, model, replicas FROM targets "
                       "ORDER BY application, model");
  if (!query)
    return query.error();
  std::vector<scale_target> out;
  auto step = sqlite3_step(query->get());
  for (; step == SQLITE_ROW; step = sqlite3_step(query->get()))
    out.push_back(
        {text_of(query->get(), 0), text_of(query->get(), 1),
         static_cast<std::uint32_t>(sqlite3_column_int64(query->get(), 2))});
  if (step != SQLITE_DONE)
    return failure("reading the remembered targets");
  return out;
}

result<void>
sqlite_store::remember_asked(const std::vector<protocol::asked_node>& nodes) {
  return transaction([&]() -> result<void> {
    if (auto done = run("DELETE FROM asked_nodes", "forgetting nodes"); !done)
      return done;
    for (const auto& node : nodes)
      if (auto done = insert_asked(node); !done)
        return done;
    return {};
  });
}

result<void> sqlite_store::insert_asked(const protocol::asked_node& node) {
  auto insert = compile("INSERT INTO asked_nodes(name, type) VALUES(?, ?)");
  if (!insert)
    return insert.error();
  auto bind = [&](int place, const std::string& text) {
    return sqlite3_bind_text64(insert->get(), place, text.data(), text.size(),
                               SQLITE_STATIC, SQLITE_UTF8) == SQLITE_OK;
  };
  if (!bind(1, node.node) || !bind(2, node.type) ||
      sqlite3_step(insert->get()) != SQLITE_DONE)
    return failure("remembering a node that was asked for");
  return {};
}

result<std::vector<protocol::asked_node>> sqlite_store::asked_nodes() {
  auto query = compile("SELECT name, type FROM asked_nodes ORDER BY name");
  if (!query)
    return query.error();
  std::vector<protocol::asked_node> out;
  auto step = sqlite3_step(query->get());
  for (; step == SQLITE_ROW; step = sqlite3_step(query->get()))
    out.push_back({text_of(query->get(), 0), text_of(query->get(), 1)});
  if (step != SQLITE_DONE)
    return failure("reading the nodes that were asked for");
  return out;
}

result<std::uint64_t> sqlite_store::save(codec::bytes_view record) {
  auto newest = latest();
  if (!newest)
    return newest.error();
  if (*newest && std::ranges::equal((*newest)->record, record))
    return (*newest)->version;
  std::uint64_t version = 0;
  auto done = transaction([&] { return insert_deployment(record, version); });
  if (!done)
    return done.error();
  return version;
}

result<void> sqlite_store::insert_deployment(codec::bytes_view record,
                                             std::uint64_t& version) {
  auto insert = compile("INSERT INTO deployments(record) VALUES(?)");
  if (!insert)
    return insert.error();
  if (sqlite3_bind_blob64(insert->get(), 1, record.data(), record.size(),
                          SQLITE_STATIC) != SQLITE_OK ||
      sqlite3_step(insert->get()) != SQLITE_DONE)
    return failure("storing a deployment");
  version = static_cast<std::uint64_t>(sqlite3_last_insert_rowid(db_.get()));
  auto prune =
      "DELETE FROM deployments WHERE version <= " +
      std::to_string(sqlite3_last_insert_rowid(db_.get()) - versions_kept);
  return run(prune.c_str(), "forgetting old deployments");
}

result<std::optional<stored_deployment>> sqlite_store::latest() {
  auto query = compile("SELECT version, record FROM deployments "
                       "ORDER BY version DESC LIMIT 1");
  if (!query)
    return query.error();
  auto step = sqlite3_step(query->get());
  if (step == SQLITE_DONE)
    return std::optional<stored_deployment>{};
  if (step != SQLITE_ROW)
    return failure("reading the newest deployment");
  stored_deployment out;
  out.version =
      static_cast<std::uint64_t>(sqlite3_column_int64(query->get(), 0));
  const auto* data =
      static_cast<const std::uint8_t*>(sqlite3_column_blob(query->get(), 1));
  out.record.assign(data, data + sqlite3_column_bytes(query->get(), 1));
  return std::optional{std::move(out)};
}

} // namespace

result<std::unique_ptr<state_store>>
state_store::open(const std::filesystem::path& file) {
  auto name = file.filename().string();
  // Made here first, so that nobody else can ever read it.
  auto fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    return error{errc::io, "state store " + name + ": cannot be opened"};
  ::fchmod(fd, 0600);
  ::close(fd);
  sqlite3* raw = nullptr;
  auto opened = sqlite3_open_v2(
      file.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  database db{raw};
  if (opened != SQLITE_OK)
    return error{errc::io, "state store " + name + ": cannot be opened"};
  auto store = std::make_unique<sqlite_store>(std::move(db), name);
  if (auto done = store->prepare(); !done)
    return done.error();
  return std::unique_ptr<state_store>{std::move(store)};
}

} // namespace troupe::controller
