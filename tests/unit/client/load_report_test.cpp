#include "client/load.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace troupe::client;

TEST_CASE("a percentile is the smallest value that covers the share") {
  std::vector<float> none;
  CHECK(percentile(none, 0.5) == 0);
  std::vector<float> values;
  for (int i = 100; i > 0; --i)
    values.push_back(static_cast<float>(i));
  CHECK(percentile(values, 0) == 1);
  CHECK(percentile(values, 0.5) == 50);
  CHECK(percentile(values, 0.99) == 99);
  CHECK(percentile(values, 0.991) == 100);
  CHECK(percentile(values, 1) == 100);
}

TEST_CASE("a report holds the counts and the times") {
  load_plan plan;
  plan.model = "m";
  load_result of;
  of.begun = of.answered = 2;
  of.seconds = 2;
  of.output_tokens = 10;
  of.first_token = {0.25f, 0.5f};
  of.whole = {1, 1};
  auto json = to_json(plan, of);
  CHECK(json.find(R"("answered":2)") != std::string::npos);
  CHECK(json.find(R"("output_tokens_per_s":5.0)") != std::string::npos);
  CHECK(json.find(R"("time_to_first_token_ms":{"mean":375.0,"p50":250.0)") !=
        std::string::npos);
  auto table = to_table(plan, of);
  CHECK(table.find("2 answered, 0 refused, 0 failed") != std::string::npos);
  CHECK(table.find("375.00") != std::string::npos);
}

TEST_CASE("a report says that it was interrupted, and what was given up") {
  load_plan plan;
  plan.requests = 50;
  load_result of;
  CHECK(to_json(plan, of).find(R"("interrupted":false)") != std::string::npos);
  CHECK(to_table(plan, of).find("interrupted") == std::string::npos);
  of.begun = 9;
  of.answered = 4;
  of.refused = 2;
  of.failed = 1;
  of.interrupted = true;
  CHECK(to_json(plan, of).find(R"("interrupted":true)") != std::string::npos);
  CHECK(to_table(plan, of).find("interrupted: 9 of 50 requests were begun, 2 "
                                "of them given up\n") != std::string::npos);
}
