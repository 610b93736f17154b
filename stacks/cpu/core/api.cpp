#include "api.h"
#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <ctime>
#include "json.h"

namespace {
struct Refusal { int status; std::string param, message; };
[[noreturn]] void refuse(const std::string& param, const std::string& why) { throw Refusal{400, param, "'" + param + "' " + why}; }

const Json& expect(const Json& v, Json::Kind kind, const std::string& name) {
  static constexpr const char* kKinds[] = {"null", "true or false", "a number", "a string", "a list", "an object"};
  if (v.kind != kind) refuse(name, std::string("must be ") + kKinds[kind]);
  return v;
}

double number(const Json& v, const std::string& name, double least, double most, bool whole) {
  if (v.kind == Json::Number && v.number >= least && v.number <= most && (!whole || v.number == std::floor(v.number))) return v.number;
  refuse(name, std::string("must be ") + (whole ? "an integer" : "a number") + " from " + json_number(least) + " to " + json_number(most));
}

std::vector<int> token_ids(const Json& v, const std::string& name, int vocab) {
  std::vector<int> ids;
  for (const Json& item : expect(v, Json::Array, name).items) ids.push_back(int(number(item, name, 0, vocab - 1, true)));
  return ids;
}

std::vector<Message> read_messages(const Json& v) {
  std::vector<Message> messages;
  for (const Json& m : expect(v, Json::Array, "messages").items) {
    const std::string name = "messages[" + std::to_string(messages.size()) + "]";
    Message& message = messages.emplace_back();
    bool said = false;
    for (size_t i = 0; i < expect(m, Json::Object, name).keys.size(); ++i) {
      const bool role = m.keys[i] == "role", content = m.keys[i] == "content";
      if (!role && !content) refuse(name + "." + m.keys[i], "is not served");
      (role ? message.role : message.content) = expect(m.items[i], Json::String, name + "." + m.keys[i]).string;
      said |= content;
    }
    const bool known = message.role == "system" || message.role == "user" || message.role == "assistant";
    if (!known) refuse(name + ".role", "must be system, user or assistant");
    if (!said) refuse(name + ".content", "is missing");
  }
  if (messages.empty()) refuse("messages", "must not be empty");
  return messages;
}

// One request for text and its answer. Between push and finish() only the scheduler's thread touches it.
class Generation {
 public:
  Generation(const Api& api, Connection& connection, bool chat) : api_(api), connection_(connection), chat_(chat) {}

  void run(const Json& body) {
    read(body);
    static std::atomic<unsigned> count{0};
    const char* object = !chat_ ? "text_completion" : stream_ ? "chat.completion.chunk" : "chat.completion";
    head_ = std::string("{\"id\":\"") + (chat_ ? "chatcmpl-" : "cmpl-") + std::to_string(++count) + "\",\"object\":\"" + object +
            "\",\"created\":" + std::to_string(std::time(nullptr)) + ",\"model\":" + json_text(api_.model) + ",\"choices\":[";
    request_->emit = [this](const Pick& p) { return take(p); };
    request_->done = [this] { end(), connection_.finish(); };
    if (stream_) connection_.start_events();
    api_.queue.push(request_);
    connection_.wait([this] { request_->cancelled = true; });
    if (!stream_) connection_.respond(200, head_ + choice() + "]," + usage() + "}");
  }

 private:
  void read(const Json& body) {
    Request& r = *request_;
    r.sampling = {1, 1, uint64_t(std::time(nullptr))};
    if (getentropy(&r.sampling.rng, sizeof r.sampling.rng) != 0) r.sampling.rng += reinterpret_cast<uintptr_t>(&r);
    for (size_t i = 0; i < body.keys.size(); ++i) {
      const std::string& key = body.keys[i];
      const Json& v = body.items[i];
      if (key == "prediction" || v.kind == Json::Null) continue;
      if (key == "model") expect(v, Json::String, key);
      else if (key == "messages" && chat_) r.prompt = api_.tokenizer.chat(read_messages(v));
      else if (key == "prompt" && !chat_) {
        r.prompt = v.kind == Json::String ? api_.tokenizer.encode(v.string) : token_ids(v, key, api_.config.vocab);
      } else if (key == "max_tokens" || key == "max_completion_tokens") r.max_tokens = int(number(v, key, 1, api_.config.context, true));
      else if (key == "temperature") r.sampling.temperature = float(number(v, key, 0, 2, false));
      else if (key == "top_p") r.sampling.top_p = float(number(v, key, 0, 1, false));
      else if (key == "seed") r.sampling.rng = uint64_t(int64_t(number(v, key, -0x1p53, 0x1p53, true)));
      else if (key == "n") number(v, key, 1, 1, true);
      else if (key == "logprobs" && !chat_) r.want_logprob = true, r.top = int(number(v, key, 0, 20, true));
      else if (key == "stream") stream_ = expect(v, Json::Bool, key).boolean;
      else if (key == "ignore_eos") ignore_eos_ = expect(v, Json::Bool, key).boolean;
      else if (key == "stream_options") {
        for (size_t k = 0; k < expect(v, Json::Object, key).keys.size(); ++k) {
          if (v.keys[k] != "include_usage") refuse(key + "." + v.keys[k], "is not served");
          usage_ = expect(v.items[k], Json::Bool, key + ".include_usage").boolean;
        }
      } else if (key == "stop") {
        for (const Json& s : v.kind == Json::Array ? v.items : std::vector<Json>{v}) stops_.push_back(expect(s, Json::String, key).string);
        if (std::find(stops_.begin(), stops_.end(), "") != stops_.end()) refuse(key, "must hold no empty string");
      } else refuse(key, "is not served");
    }
    if (usage_ && !stream_) refuse("stream_options", "needs stream");
    if (r.prompt.empty()) refuse(chat_ ? "messages" : "prompt", "is missing, or holds no tokens");
    const int context = api_.config.context, room = context - int(r.prompt.size());
    if (!r.max_tokens) r.max_tokens = chat_ ? std::max(room, 1) : 16;  // OpenAI's defaults
    if (room >= r.max_tokens) return;
    refuse("max_tokens", "and the prompt's " + std::to_string(r.prompt.size()) + " are more than the context's " + std::to_string(context));
  }

  bool take(const Pick& p) {
    if (p.token == api_.config.eos && !ignore_eos_) finish_ = "\"stop\"";
    else add(p);
    return finish_ == kNotYet && (!stream_ || connection_.event(head_ + choice() + "]}"));
  }

  void add(const Pick& p) {
    ids_.push_back(p.token);
    if (++tokens_ == request_->max_tokens) finish_ = "\"length\"";
    if (request_->want_logprob) add_logprobs(p);
    held_ += api_.tokenizer.text(p.token);
    size_t cut = held_.npos, keep = 0;  // keep: bytes at the end that may be the start of a stop string
    for (const std::string& stop : stops_) {
      cut = std::min(cut, held_.find(stop));
      size_t n = std::min(stop.size() - 1, held_.size());
      while (n > keep && held_.compare(held_.size() - n, n, stop, 0, n) != 0) --n;
      keep = std::max(keep, n);
    }
    if (cut != held_.npos) held_.resize(cut), keep = 0, finish_ = "\"stop\"";
    bytes_.append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    move_utf8(bytes_, text_, false);
  }

  void add_logprobs(const Pick& p) {
    const std::string comma = ids_.size() > 1 ? "," : "";
    token_texts_ += comma + json_text(api_.tokenizer.text(p.token));
    logprobs_ += comma + json_number(p.logprob);
    tops_ += comma + "{";
    for (const auto& [id, logprob] : p.tops) {
      tops_ += (tops_.back() == '{' ? "\"" : ",\"") + std::to_string(id) + "\":" + json_number(logprob);
    }
    tops_ += "}";
  }

  // What is new since the last call, as the element of "choices".
  std::string choice() {
    const std::string ids = json_list(ids_);
    std::string out = !chat_ ? "{\"index\":0,\"text\":" : stream_ ? "{\"index\":0,\"delta\":{" : "{\"index\":0,\"message\":{";
    if (chat_) out += std::exchange(named_, true) ? "\"content\":" : "\"role\":\"assistant\",\"content\":";
    out += json_text(text_) + (chat_ ? "}" : "") + ",\"token_ids\":" + ids;
    if (request_->want_logprob) {
      out += ",\"logprobs\":{\"tokens\":[" + token_texts_ + "],\"token_ids\":" + ids + ",\"token_logprobs\":[" + logprobs_ +
             "],\"top_logprobs\":[" + tops_ + "]}";
    }
    text_.clear(), ids_.clear(), token_texts_.clear(), logprobs_.clear(), tops_.clear();
    return out + ",\"finish_reason\":" + finish_ + "}";
  }

  std::string usage() const {
    const size_t prompt = request_->prompt.size();
    return "\"usage\":{\"prompt_tokens\":" + std::to_string(prompt) + ",\"completion_tokens\":" + std::to_string(tokens_) +
           ",\"total_tokens\":" + std::to_string(prompt + tokens_) + "}";
  }

  void end() {
    move_utf8(bytes_ += held_, text_, true);
    if (!stream_) return;
    connection_.event(head_ + choice() + "]}");
    if (usage_) connection_.event(head_ + "]," + usage() + "}");
    connection_.event("[DONE]"), connection_.event("");
  }

  static constexpr const char* kNotYet = "null";
  const Api& api_;
  Connection& connection_;
  const bool chat_;
  bool stream_ = false, usage_ = false, ignore_eos_ = false, named_ = false;
  std::vector<std::string> stops_;
  std::shared_ptr<Request> request_ = std::make_shared<Request>();
  std::string head_;                            // an answer up to its choices
  std::string held_, bytes_, text_;             // undecided for a stop string, undecided as UTF-8, ready to go
  std::string token_texts_, logprobs_, tops_;   // insides of JSON lists
  std::vector<int> ids_;
  int tokens_ = 0;
  const char* finish_ = kNotYet;
};

void score(const Api& api, Connection& connection, const Json& body) {
  const Json *sequences = nullptr, *queries = nullptr;
  for (size_t i = 0; i < body.keys.size(); ++i) {
    const std::string& key = body.keys[i];
    if (key == "model") continue;
    if (key != "sequences" && key != "query") refuse(key, "is not served");
    (key == "query" ? queries : sequences) = &expect(body.items[i], Json::Array, key);
  }
  if (!sequences) refuse("sequences", "is missing");
  if (!queries || queries->items.size() != sequences->items.size()) refuse("query", "must have a list for each of sequences");
  std::vector<std::shared_ptr<Request>> requests;
  for (size_t i = 0; i < sequences->items.size(); ++i) {
    Request& r = *requests.emplace_back(std::make_shared<Request>());
    r.score = true, r.prompt = token_ids(sequences->items[i], "sequences", api.config.vocab);
    if (r.prompt.empty() || int(r.prompt.size()) > api.config.context) refuse("sequences", "must hold 1 … context tokens each");
    const Json& query = expect(queries->items[i], Json::Array, "query");
    if (query.items.size() != r.prompt.size()) refuse("query", "must have a list for each token of sequences");
    for (const Json& ids : query.items) r.query.push_back(token_ids(ids, "query", api.config.vocab));
    r.scores.resize(r.query.size());
  }
  std::atomic<size_t> left = requests.size();
  for (const auto& r : requests) r->done = [&] { if (--left == 0) connection.finish(); };
  for (const auto& r : requests) api.queue.push(r);
  if (!requests.empty()) connection.wait([&] { for (const auto& r : requests) r->cancelled = true; });
  std::string out = "{\"logprobs\":[";
  const auto comma = [&] { return out.back() == '[' ? "" : ","; };
  for (const auto& r : requests) {
    (out += comma()) += "[";
    for (const auto& scores : r->scores) {
      (out += comma()) += "[";
      for (const float s : scores) (out += comma()) += json_number(s);
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
  const std::string model = "{\"id\":" + json_text(api.model) + ",\"object\":\"model\",\"owned_by\":\"vibeserve\"}";
  if (get) return connection.respond(200, "{\"object\":\"list\",\"data\":[" + model + "]}");
  Json body;
  try {
    body = parse_json(request.body);
  } catch (const std::exception& e) {
    throw Refusal{400, "", std::string("The body is not JSON: ") + e.what()};
  }
  if (body.kind != Json::Object) throw Refusal{400, "", "The body must be a JSON object"};
  if (path == "/v1/score") score(api, connection, body);
  else Generation(api, connection, chat).run(body);
}
}  // namespace

void handle_request(const Api& api, Connection& connection, const HttpRequest& request) {
  try {
    answer(api, connection, request);
  } catch (const Refusal& r) {
    const std::string param = r.param.empty() ? "null" : json_text(r.param), type = ",\"type\":\"invalid_request_error\",\"param\":";
    connection.respond(r.status, "{\"error\":{\"message\":" + json_text(r.message) + type + param + "}}");
  }
}
