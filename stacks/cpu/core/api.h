// The candidate's contract over HTTP: OpenAI's completions and chat completions, /v1/score, /v1/models, /health.
#pragma once
#include "engine.h"
#include "http.h"
#include "tokenizer.h"

struct Api {
  const Tokenizer& tokenizer;
  const Config& config;
  Queue& queue;
  std::string model;  // the name that answers carry
};

void handle_request(const Api& api, Connection& connection, const HttpRequest& request);
