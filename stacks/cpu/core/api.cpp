#include "api.h"
#include <algorithm>
#include <cmath>
#include <ctime>
#include <random>
#include "json.h"
#include "utf8.h"

namespace {
struct Refusal { int status; std::string param, message; };

[[noreturn]] void refuse(const std::string& param, const std::string& why) { throw Refusal{400, param, "'" + param + "' " + why}; }

void expect(const Json& v, Json::Kind kind, const std::string& name, const char* what) {
  if (v.kind != kind) refuse(name, std::string("must be ") + what);
}

double number(const Json& v, const std::string& name, double least, double most, bool whole) {
  if (v.kind == Json::Number && v.number >= least && v.number <= most && (!whole || v.number == std::floor(v.number))) return v.number;
  char range[80];
  std::snprintf(range, sizeof range, "must be %s from %.17g to %.17g", whole ? "an integer" : "a number", least, most);
  refuse(name, range);
}

std::vector<int> token_ids(const Json& v, const std::string& name, int vocab) {
  expect(v, Json::Array, name, "a list of token ids");
  std::vector<int> ids;
  for (const Json& item : v.items) ids.push_back(int(number(item, name, 0, vocab - 1, true)));
  return ids;
}

// What one request for text asks, beyond what the scheduler needs to know.
struct Job {
  bool chat = false, stream = false, usage = false, ignore_eos = false;
  int logprobs = -1;  // -1: none
  std::vector<std::string> stops;
  std::shared_ptr<Request> request = std::make_shared<Request>();
};

std::vector<int> read_messages(const Api& api, const Json& v) {
  expect(v, Json::Array, "messages", "a list");
  std::vector<Message> messages;
  for (const Json& m : v.items) {
    const std::string name = "messages[" + std::to_string(messages.size()) + "]";
    expect(m, Json::Object, name, "an object");
    Message& message = messages.emplace_back();
    for (size_t i = 0; i < m.keys.size(); ++i) {
      if (m.keys[i] != "role" && m.keys[i] != "content") refuse(name + "." + m.keys[i], "is not served");
      expect(m.items[i], Json::String, name + "." + m.keys[i], "a string");
      (m.keys[i] == "role" ? message.role : message.content) = m.items[i].string;
    }
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      refuse(name + ".role", "must be system, user or assistant");
    }
    if (std::find(m.keys.begin(), m.keys.end(), "content") == m.keys.end()) refuse(name + ".content", "is missing");
  }
  if (messages.empty()) refuse("messages", "must not be empty");
  return api.tokenizer.chat(messages);
}

Job read_job(const Api& api, const Json& body, bool chat) {
  Job job;
  job.chat = chat;
  Request& r = *job.request;
  r.sampling = {1, 1, uint64_t(std::random_device{}()) << 32 | std::random_device{}()};
  for (size_t i = 0; i < body.keys.size(); ++i) {
    const std::string& key = body.keys[i];
    const Json& v = body.items[i];
    if (key == "prediction" || v.kind == Json::Null) continue;
    if (key == "model") expect(v, Json::String, key, "a string");
    else if (key == "messages" && chat) r.prompt = read_messages(api, v);
    else if (key == "prompt" && !chat && v.kind == Json::String) r.prompt = api.tokenizer.encode(v.string);
    else if (key == "prompt" && !chat) r.prompt = token_ids(v, key, api.config.vocab);
    else if (key == "max_tokens" || key == "max_completion_tokens") r.max_tokens = int(number(v, key, 1, api.config.context, true));
    else if (key == "temperature") r.sampling.temperature = float(number(v, key, 0, 2, false));
    else if (key == "top_p") r.sampling.top_p = float(number(v, key, 0, 1, false));
    else if (key == "seed") r.sampling.rng = uint64_t(int64_t(number(v, key, -0x1p53, 0x1p53, true)));
    else if (key == "n") number(v, key, 1, 1, true);
    else if (key == "logprobs" && !chat) r.want_logprob = true, r.top = job.logprobs = int(number(v, key, 0, 20, true));
    else if (key == "stream") expect(v, Json::Bool, key, "true or false"), job.stream = v.boolean;
    else if (key == "ignore_eos") expect(v, Json::Bool, key, "true or false"), job.ignore_eos = v.boolean;
    else if (key == "stream_options") {
      expect(v, Json::Object, key, "an object");
      for (size_t k = 0; k < v.keys.size(); ++k) {
        if (v.keys[k] != "include_usage") refuse(key + "." + v.keys[k], "is not served");
        expect(v.items[k], Json::Bool, key + ".include_usage", "true or false"), job.usage = v.items[k].boolean;
      }
    } else if (key == "stop") {
      for (const Json& s : v.kind == Json::Array ? v.items : std::vector<Json>{v}) {
        expect(s, Json::String, key, "a string or a list of strings");
        if (s.string.empty()) refuse(key, "must hold no empty string");
        job.stops.push_back(s.string);
      }
    } else refuse(key, "is not served");
  }
  if (job.usage && !job.stream) refuse("stream_options", "needs stream");
  if (r.prompt.empty()) refuse(chat ? "messages" : "prompt", "is missing, or holds no tokens");
  const int room = api.config.context - int(r.prompt.size());
  if (!r.max_tokens) r.max_tokens = chat ? room : 16;  // OpenAI's defaults
  if (room < r.max_tokens || room < 1) {
    refuse("max_tokens", "and the prompt's " + std::to_string(r.prompt.size()) + " tokens are more than the context of " +
           std::to_string(api.config.context));
  }
  return job;
}

// The answer to one job. Between push and finish() only the scheduler's thread touches it.
class Answer {
 public:
  Answer(const Api& api, Job job, Connection& connection) : api_(api), job_(std::move(job)), connection_(connection) {
    static std::atomic<unsigned> count{0};
    const char* object = !job_.chat ? "text_completion" : job_.stream ? "chat.completion.chunk" : "chat.completion";
    head_ = std::string("{\"id\":\"") + (job_.chat ? "chatcmpl-" : "cmpl-") + std::to_string(++count) + "\",\"object\":\"" + object +
            "\",\"created\":" + std::to_string(std::time(nullptr)) + ",\"model\":";
    put_string(head_, api.model);
    head_ += ",\"choices\":[";
  }

  void run() {
    Request& r = *job_.request;
    r.emit = [this](const Pick& p) { return take(p); };
    r.done = [this] { end(), connection_.finish(); };
    if (job_.stream) connection_.start_events();
    api_.queue.push(job_.request);
    connection_.wait([&r] { r.cancelled = true; });
    if (!job_.stream) connection_.respond(200, head_ + choice() + "]," + usage() + "}");
  }

 private:
  bool take(const Pick& p) {
    if (p.token == api_.config.eos && !job_.ignore_eos) finish_ = "\"stop\"";
    else add(p);
    return finish_ == kNotYet && (!job_.stream || connection_.event(head_ + choice() + "]}"));
  }

  void add(const Pick& p) {
    ids_.push_back(p.token);
    if (++tokens_ == job_.request->max_tokens) finish_ = "\"length\"";
    if (job_.logprobs >= 0) add_logprobs(p);
    held_ += api_.tokenizer.text(p.token);
    size_t cut = held_.npos, keep = 0;  // keep: bytes at the end that may be the start of a stop string
    for (const std::string& stop : job_.stops) {
      cut = std::min(cut, held_.find(stop));
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
        if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
      }
    }
    if (cut != held_.npos) held_.resize(cut), keep = 0, finish_ = "\"stop\"";
    bytes_.append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    move_utf8(bytes_, text_, false);
  }

  void add_logprobs(const Pick& p) {
    const char* comma = ids_.size() > 1 ? "," : "";
    put_string(tokens_text_ += comma, api_.tokenizer.text(p.token));
    put_number(logprobs_ += comma, p.logprob);
    (tops_ += comma) += "{";
    for (size_t i = 0; i < p.tops.size(); ++i) {
      tops_ += (i ? ",\"" : "\"") + std::to_string(p.tops[i].first) + "\":";
      put_number(tops_, p.tops[i].second);
    }
    tops_ += "}";
  }

  // What is new since the last call, as the element of "choices".
  std::string choice() {
    std::string out = "{\"index\":0,";
    if (job_.chat) out += job_.stream ? "\"delta\":{" : "\"message\":{";
    if (job_.chat && !std::exchange(named_, true)) out += "\"role\":\"assistant\",";
    put_string(out += job_.chat ? "\"content\":" : "\"text\":", text_);
    put_list(out += job_.chat ? "},\"token_ids\":" : ",\"token_ids\":", ids_);
    if (job_.logprobs >= 0) {
      put_list(out += ",\"logprobs\":{\"tokens\":[" + tokens_text_ + "],\"token_ids\":", ids_);
      out += ",\"token_logprobs\":[" + logprobs_ + "],\"top_logprobs\":[" + tops_ + "]}";
    }
    out += std::string(",\"finish_reason\":") + finish_ + "}";
    text_.clear(), ids_.clear(), tokens_text_.clear(), logprobs_.clear(), tops_.clear();
    return out;
  }

  std::string usage() const {
    const size_t prompt = job_.request->prompt.size();
    return "\"usage\":{\"prompt_tokens\":" + std::to_string(prompt) + ",\"completion_tokens\":" + std::to_string(tokens_) +
           ",\"total_tokens\":" + std::to_string(prompt + tokens_) + "}";
  }

  void end() {
    move_utf8(bytes_ += held_, text_, true);
    if (!job_.stream) return;
    connection_.event(head_ + choice() + "]}");
    if (job_.usage) connection_.event(head_ + "]," + usage() + "}");
    connection_.event("[DONE]"), connection_.event("");
  }

  static constexpr const char* kNotYet = "null";
  const Api& api_;
  const Job job_;
  Connection& connection_;
  std::string head_;                            // an answer up to its choices
  std::string held_, bytes_, text_;             // undecided for a stop string, undecided as UTF-8, ready to go
  std::string tokens_text_, logprobs_, tops_;   // insides of JSON lists
  std::vector<int> ids_;
  int tokens_ = 0;
  bool named_ = false;
  const char* finish_ = kNotYet;
};

void score(const Api& api, const Json& body, Connection& connection) {
  const std::vector<Json>*sequences = nullptr, *queries = nullptr;
  for (size_t i = 0; i < body.keys.size(); ++i) {
    const std::string& key = body.keys[i];
    if (key != "sequences" && key != "query" && key != "model") refuse(key, "is not served");
    if (key != "model") expect(body.items[i], Json::Array, key, "a list"), (key == "query" ? queries : sequences) = &body.items[i].items;
  }
  if (!sequences) refuse("sequences", "is missing");
  if (!queries || queries->size() != sequences->size()) refuse("query", "must be a list with an element for each of sequences");
  std::vector<std::shared_ptr<Request>> requests;
  for (size_t i = 0; i < sequences->size(); ++i) {
    Request& r = *requests.emplace_back(std::make_shared<Request>());
    r.score = true;
    r.prompt = token_ids((*sequences)[i], "sequences", api.config.vocab);
    if (r.prompt.empty() || int(r.prompt.size()) > api.config.context) refuse("sequences", "must hold sequences of 1 … context tokens");
    const Json& query = (*queries)[i];
    if (query.kind != Json::Array || query.items.size() != r.prompt.size()) refuse("query", "must have a list for each token of sequences");
    for (const Json& ids : query.items) r.query.push_back(token_ids(ids, "query", api.config.vocab));
    r.scores.resize(r.query.size());
  }
  std::atomic<size_t> left = requests.size();
  for (const auto& r : requests) r->done = [&] { if (--left == 0) connection.finish(); };
  for (const auto& r : requests) api.queue.push(r);
  if (!requests.empty()) connection.wait([&] { for (const auto& r : requests) r->cancelled = true; });
  std::string out = "{\"logprobs\":[";
  for (const auto& r : requests) {
    out += &r == &requests[0] ? "[" : ",[";
    for (size_t j = 0; j < r->scores.size(); ++j) {
      out += j ? ",[" : "[";
      for (size_t m = 0; m < r->scores[j].size(); ++m) put_number(out += m ? "," : "", r->scores[j][m]);
      out += "]";
    }
    out += "]";
  }
  connection.respond(200, out + "]}");
}

void answer(const Api& api, Connection& connection, const HttpRequest& request) {
  const std::string& path = request.path;
  const bool get = path == "/health" || path == "/v1/models", chat = path == "/v1/chat/completions";
  if (!get && !chat && path != "/v1/completions" && path != "/v1/score") throw Refusal{404, "", "There is no " + path};
  if (request.method != (get ? "GET" : "POST")) throw Refusal{405, "", path + " does not answer " + request.method};
  if (path == "/health") return connection.respond(200, "{\"status\":\"ok\"}");
  if (path == "/v1/models") {
    std::string name;
    put_string(name, api.model);
    return connection.respond(200, "{\"object\":\"list\",\"data\":[{\"id\":" + name + ",\"object\":\"model\",\"owned_by\":\"vibeserve\"}]}");
  }
  Json body;
  try { body = parse_json(request.body); } catch (const std::exception& e) { throw Refusal{400, "", std::string("The body is not JSON: ") + e.what()}; }
  if (body.kind != Json::Object) throw Refusal{400, "", "The body must be a JSON object"};
  if (path == "/v1/score") return score(api, body, connection);
  Answer(api, read_job(api, body, chat), connection).run();
}
}  // namespace

void handle_request(const Api& api, Connection& connection, const HttpRequest& request) {
  try {
    answer(api, connection, request);
  } catch (const Refusal& r) {
    std::string out = "{\"error\":{\"message\":";
    put_string(out, r.message);
    out += ",\"type\":\"invalid_request_error\",\"param\":";
    if (r.param.empty()) out += "null"; else put_string(out, r.param);
    connection.respond(r.status, out + "}}");
  }
}
