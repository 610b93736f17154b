"""Stands where openvino_genai stands: an engine that says its prompt again, token by token, from the start.

A token "%" in place n makes it run out of memory there; FAKE_STEP_MS is how long a step takes. What becomes of requests goes to stderr, a line each.
"""
import enum
import os
import sys
import time

EOS, OUT_OF_MEMORY = 2, "%"


class GenerationFinishReason(enum.Enum):
    NONE, STOP, LENGTH = range(3)


class GenerationStatus(enum.Enum):
    RUNNING, FINISHED, IGNORED, CANCEL, STOP = range(5)


class SchedulerConfig:
    max_num_seqs = 256


class GenerationConfig:
    do_sample = ignore_eos = False
    max_new_tokens = logprobs = 0
    eos_token_id = -1
    stop_token_ids = frozenset()


class GenerationOutput:
    def __init__(self, token, logprob, finish_reason):
        self.generated_ids, self.generated_log_probs, self.finish_reason = [token], [logprob], finish_reason


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class GenerationHandle:
    def __init__(self, prompt, config):
        self.prompt, self.config, self.out, self.count = prompt, config, [], 0
        self.status = GenerationStatus.RUNNING

    def can_read(self):
        return bool(self.out)

    def read(self):
        return {0: self.out.pop(0)}

    def get_status(self):
        return self.status

    def cancel(self):
        say("cancelled after", self.count)
        self.status = GenerationStatus.CANCEL


class ContinuousBatchingPipeline:
    def __init__(self, model, scheduler_config, device, properties):
        say("loaded", device, sorted(properties.items()), sorted(vars(scheduler_config).items()))
        self.max_num_seqs, self.waiting = scheduler_config.max_num_seqs, []

    def add_request(self, request_id, input_ids, config):
        handle = GenerationHandle(list(input_ids.data[0]), config)
        if len(handle.prompt) > 4000:
            raise RuntimeError("prompt is too long for the fake")
        self.waiting.append(handle)
        return handle

    def step(self):
        time.sleep(float(os.environ.get("FAKE_STEP_MS", "0")) / 1000)
        self.waiting = [h for h in self.waiting if h.status == GenerationStatus.RUNNING]
        say("step of", len(self.waiting[: self.max_num_seqs]))
        for h in self.waiting[: self.max_num_seqs]:
            token, reason = h.prompt[h.count % len(h.prompt)], GenerationFinishReason.NONE
            if token == int(os.environ.get("FAKE_OUT_OF_MEMORY_ID", "-1")):
                h.status = GenerationStatus.IGNORED
                continue
            h.count += 1
            if token in h.config.stop_token_ids and not h.config.ignore_eos:
                reason = GenerationFinishReason.STOP
            elif h.count == h.config.max_new_tokens:
                reason = GenerationFinishReason.LENGTH
            h.out.append(GenerationOutput(token, -0.5 if h.config.logprobs else 0.0, reason))
            if reason != GenerationFinishReason.NONE:
                h.status = GenerationStatus.FINISHED
