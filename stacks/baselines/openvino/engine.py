"""The engine behind the server: token ids in, token ids out, a step at a time."""
import json
import os
import shutil
import tempfile


def place(model, folder):
    """A path in `folder` at which OpenVINO GenAI can read a GGUF file: it opens for writing what it reads, and fails on a read-only mount."""
    path = os.path.join(folder, "model.gguf")
    if os.access(model, os.W_OK):
        os.symlink(os.path.abspath(model), path)
    else:
        shutil.copyfile(model, path)
    return path


class Engine:
    """ContinuousBatchingPipeline over token ids; `properties` go to OpenVINO's CPU plugin, `scheduler` to SchedulerConfig, both as text."""

    def __init__(self, model, properties, scheduler):
        import openvino
        import openvino_genai

        self._ov, self._genai = openvino, openvino_genai
        config = openvino_genai.SchedulerConfig()
        for key, value in scheduler.items():
            setattr(config, key, json.loads(value))
        with tempfile.TemporaryDirectory(prefix="engine-") as folder:
            self.pipeline = openvino_genai.ContinuousBatchingPipeline(place(model, folder), config, "CPU", properties)
        self._next = 0

    def tensor(self, ids):
        tensor = self._ov.Tensor(self._ov.Type.i64, self._ov.Shape([1, len(ids)]))
        tensor.data[0][:] = ids
        return tensor

    def config(self, ask, eos):
        c = self._genai.GenerationConfig()
        c.max_new_tokens, c.ignore_eos, c.eos_token_id = ask.max_tokens, ask.ignore_eos, eos
        c.stop_token_ids = set() if ask.ignore_eos else {eos}
        c.do_sample = ask.temperature > 0
        if c.do_sample:
            c.temperature, c.top_p, c.top_k = ask.temperature, ask.top_p, 2**31
            c.rng_seed = int.from_bytes(os.urandom(7), "little") if ask.seed is None else ask.seed
        c.logprobs = 0 if ask.logprobs is None else 1
        return c

    def add(self, ask, eos):
        self._next += 1
        return self.pipeline.add_request(self._next, self.tensor(ask.prompt), self.config(ask, eos))

    def tokens_of(self, handle):
        """What the last step decided: [(id, logprob)], and how it ended: None, "length", "stop" or "failed"."""
        tokens, finish, reasons = [], None, self._genai.GenerationFinishReason
        while handle.can_read():
            for out in handle.read().values():
                tokens += zip(out.generated_ids, out.generated_log_probs)
                finish = {reasons.LENGTH: "length", reasons.STOP: "stop"}.get(out.finish_reason, finish)
        if finish is None and handle.get_status() != self._genai.GenerationStatus.RUNNING:
            finish = "failed"
        return tokens, finish
