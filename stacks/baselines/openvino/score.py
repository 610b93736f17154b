"""Teacher-forced log-probabilities: the engine's own conversion of the same file, inferred directly.

ContinuousBatchingPipeline shows the log-probability of the token it chose and of no other. So the graph and the 4- and 8-bit weights that
OpenVINO GenAI made of the GGUF are saved once and run through openvino.Core with the same properties. What differs from the served path is
the attention: one contiguous cache here, pages there.
"""
import os
import tempfile

import numpy
import openvino
import openvino_genai

from api import BadRequest, token_ids
from engine import place

CHUNK = 128  # positions an inference: 25 MB of logits
LABEL = "same weights, direct infer"


def convert(model, folder):
    """Saves what OpenVINO GenAI makes of a GGUF file as an OpenVINO model; returns the path of its .xml."""
    openvino_genai.LLMPipeline(place(model, folder), "CPU", enable_save_ov_model=True)  # it writes beside the file
    return os.path.join(folder, "openvino_model.xml")


class Scorer:
    def __init__(self, model, properties, tokenizer):
        self._size, self._context = tokenizer.size, tokenizer.context
        with tempfile.TemporaryDirectory(prefix="score-") as folder:
            core = openvino.Core()
            self._request = core.compile_model(core.read_model(convert(model, folder)), "CPU", properties).create_infer_request()

    def answer(self, body):
        """{"sequences", "query"} → {"logprobs", "engine"}; see the candidate's contract. Raises BadRequest."""
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        for field in body:
            if field not in ("sequences", "query"):
                raise BadRequest(f"{field} is not served by this stack", field)
        sequences, query = body.get("sequences"), body.get("query")
        if not isinstance(sequences, list):
            raise BadRequest("sequences must be a list of lists of ids", "sequences")
        if not isinstance(query, list) or len(query) != len(sequences):
            raise BadRequest("query must have one entry a sequence", "query")
        for ids, asked in zip(sequences, query):
            if len(token_ids(ids, self._size, "sequences")) > self._context:
                raise BadRequest(f"a sequence is longer than the context of {self._context}", "sequences")
            if not isinstance(asked, list) or len(asked) != len(ids):
                raise BadRequest("query must have one list of ids a position", "query")
            for wanted in asked:
                if wanted != []:
                    token_ids(wanted, self._size, "query")
        return {"logprobs": [self._score(ids, asked) for ids, asked in zip(sequences, query)], "engine": LABEL}

    def _score(self, ids, asked):
        self._request.reset_state()
        scores = []
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            end = start + len(chunk)
            self._request.infer(
                {
                    "input_ids": numpy.array([chunk], dtype=numpy.int64),
                    "attention_mask": numpy.ones((1, end), dtype=numpy.int64),
                    "position_ids": numpy.arange(start, end, dtype=numpy.int64)[None],
                    "beam_idx": numpy.zeros(1, dtype=numpy.int32),
                }
            )
            logits = self._request.get_output_tensor(0).data[0]
            scores += [_logprobs(row, wanted) for row, wanted in zip(logits, asked[start:end])]
        return scores


def _logprobs(row, wanted):
    if not wanted:
        return []
    row = row.astype(numpy.float64)
    top = row.max()
    return (row[wanted] - top - numpy.log(numpy.exp(row - top).sum())).tolist()
